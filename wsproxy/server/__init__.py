"""One client from accept to end, and the processes that serve."""
