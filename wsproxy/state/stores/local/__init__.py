"""The store in one process of a host, which others reach by a Unix socket."""
