"""What does not hold through a WSGI server, and why. Whoever adds a line explains it to users."""

from __future__ import annotations

__all__ = ["DIFFERENCES"]

DIFFERENCES: dict[str, dict[str, str]] = {"werkzeug": {}, "gunicorn gthread, TLS": {}}
"""By front and test (``Class.test``, or ``Class.test[sub-test]``) the reason, which users are told."""
