"""Sockets, transports, TLS, name resolution and listeners: moving bytes with a deadline."""
