"""The figures of the rates and of the constant."""
