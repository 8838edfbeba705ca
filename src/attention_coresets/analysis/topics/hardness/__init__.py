"""How hard can a tiny cache be made on purpose?"""
