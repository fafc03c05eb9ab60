"""Predicts what consoles cost: processes, memory, CPU, commands of the store, connections to the API."""
