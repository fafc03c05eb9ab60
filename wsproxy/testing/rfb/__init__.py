"""RFB: clients of a console, from raw bytes to a viewer that knows the picture, and the server's end."""
