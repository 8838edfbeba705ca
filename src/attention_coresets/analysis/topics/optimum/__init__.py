"""How far from the exact optimum are constructions on caches so small that it can be found?"""
