"""What browsers are answered without an upgrade: endpoints, static files, pictures, the console page."""
