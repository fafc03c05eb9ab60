"""Answers browsers without an upgrade: endpoints, static files, screenshots, the console page."""
