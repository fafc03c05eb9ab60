"""The declarations of all settings, and the code that reads settings from flags, variables and files."""
