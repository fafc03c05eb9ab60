"""Measures what the state that processes share costs."""
