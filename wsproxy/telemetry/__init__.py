"""Records what happened: counters, causes, the audit log, metrics."""
