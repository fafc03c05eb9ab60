"""Every setting, declared once: what it is called, what it may be, and what it is for."""
