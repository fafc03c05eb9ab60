"""The store in a Redis or Valkey."""
