"""Are the worst cases found the worst? Ascent, branch and bound and certificates against each other."""
