"""Statistics that know no experiment: sizes, fitted laws, medians and their intervals."""
