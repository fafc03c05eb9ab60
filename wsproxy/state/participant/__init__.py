"""The side of one process: what it holds of the shared state, and how it stays in step with the store."""
