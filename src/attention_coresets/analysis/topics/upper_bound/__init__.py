"""How large does the upper bound's constant get, over every row, and does it grow with d, ρ or n?"""
