"""How does the size for an error grow with 1/ε, d, ρ and n, and with which constant?"""
