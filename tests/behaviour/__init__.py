"""What users can rely on and no single module answers for: whole proxies, looked at from outside."""
