"""Bytes in, values out: HTTP heads, the opening handshake, frames, closing, RFB, origins, routes. No I/O."""
