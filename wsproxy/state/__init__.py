"""The rules of what has to be true for all sessions together: limits, arbitration, tickets, denylist."""
