"""Clients of a console: raw bytes, RFB messages, a viewer that knows the picture."""
