"""Rules that hold for all sessions together: limits, arbitration, tickets, denylist."""
