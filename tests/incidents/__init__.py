"""What happened to programs of this kind, and what a stranger may try: each is a test, named after its class."""
