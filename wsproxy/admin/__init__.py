"""Serves the operator: metrics, the list of sessions, kicks."""
