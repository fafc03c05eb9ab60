"""A simulated machine's screen: desktop, terminal, font and pictures."""
