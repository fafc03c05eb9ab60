"""Answers browsers without an upgrade: endpoints, static files, pictures of screens, the console page."""
