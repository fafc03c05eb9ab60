"""Who may come in, and who is in: credentials, admission, hooks and the live sessions."""
