"""``scripts/bench``: compares wsproxy with the original, and with proxies that operators choose for speed."""
