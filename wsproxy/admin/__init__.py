"""The operator's listener: metrics, the list of sessions, ending them."""
