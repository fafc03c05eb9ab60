"""The Kubernetes API as a client sees it: where it is, dialling a console, its refusals in our words."""
