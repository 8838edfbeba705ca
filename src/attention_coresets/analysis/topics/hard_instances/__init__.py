"""Is the bound tight? Signed clusters against their floors, the antipodal pair, and controls without e^ρ."""
