"""What do the heads of a real model need?"""
