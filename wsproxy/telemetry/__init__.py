"""What happened: counters, causes, the audit log and metrics."""
