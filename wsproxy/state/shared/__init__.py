"""The rules of the state that processes share: they decide on values and a time, without I/O."""
