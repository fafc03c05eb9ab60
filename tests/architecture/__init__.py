"""The architecture, read from the sources: who may import whom, what does no I/O, how large things are."""
