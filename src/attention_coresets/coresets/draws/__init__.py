"""Independent draws: uniform, at sensitivities, and systematic sampling, which gives them exact size."""
