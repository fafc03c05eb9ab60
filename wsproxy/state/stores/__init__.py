"""Where the state that processes share is kept."""
