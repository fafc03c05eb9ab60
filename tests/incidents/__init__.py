"""What befell programs of this kind, and what a stranger may try: a test for each class, named after it."""
