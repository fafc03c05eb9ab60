"""Moves bytes with a deadline: sockets, transports, TLS, name resolution, listeners."""
