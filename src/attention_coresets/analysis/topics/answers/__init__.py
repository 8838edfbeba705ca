"""Does a compressed cache keep facts that nobody has asked for yet?"""
