"""Rules published elsewhere that fit no other folder."""
