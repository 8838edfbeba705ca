"""Is our own construction better than every other one?"""
