"""Decides what must be true for all sessions together: limits, consoles, tickets, revocations."""
