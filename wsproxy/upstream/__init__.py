"""A client of the Kubernetes API: its address, dialling a console, and translating its refusals."""
