"""Parses and builds HTTP heads, handshakes, frames, Closes, RFB, origins and routes. No I/O."""
