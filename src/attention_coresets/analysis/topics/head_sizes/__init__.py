"""How large a coreset does each head of a model need, and what tells it?"""
