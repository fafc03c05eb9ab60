"""Both ends of RFB: a client for raw bytes, a viewer with a framebuffer, and the server's end."""
