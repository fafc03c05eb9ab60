"""Decides what must be true for all sessions together, and keeps it: limits, consoles, tickets, revocations."""
