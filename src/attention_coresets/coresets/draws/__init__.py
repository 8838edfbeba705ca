"""Independent draws: uniform ones, draws at sensitivities, and systematic sampling, which gives them exact size."""
