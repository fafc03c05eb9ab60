"""``scripts/bench``: wsproxy, the original and what an operator would pick for speed, side by side."""
