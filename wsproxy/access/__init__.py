"""Decides which clients may come in, and lists the sessions: control, credentials, admission, hooks."""
