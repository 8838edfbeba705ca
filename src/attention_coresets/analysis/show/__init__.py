"""What any sweep says, the study's or one's own: tables for the terminal, and figures."""
