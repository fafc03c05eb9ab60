"""Test doubles for a console gateway: a desktop that speaks RFB, a viewer, and what else a suite needs."""
