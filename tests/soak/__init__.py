"""Long runs: ``python -m tests.soak`` copies frames, or opens and ends sessions, and looks for faults."""
