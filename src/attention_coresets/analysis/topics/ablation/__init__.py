"""Which part of the tilted Gram–Schmidt walk does what?"""
