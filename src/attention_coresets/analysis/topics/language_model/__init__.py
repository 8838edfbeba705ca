"""What does a language model lose on coresets?"""
