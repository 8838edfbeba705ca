"""Rules published elsewhere that have no room of their own."""
