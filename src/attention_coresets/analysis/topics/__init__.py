"""The study's questions, a folder each."""
