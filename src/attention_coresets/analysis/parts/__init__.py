"""What topics are made of: results as read, claims and their status, sections, and how numbers and arms are written."""
