"""The screens of simulated machines: desktop, terminal, font and pictures."""
