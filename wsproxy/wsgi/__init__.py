"""Consoles inside a WSGI application: under werkzeug's development server, and gunicorn's gthread workers.

::

    application = ConsoleApp(config, application)     # consoles under config's host_path_prefix

A console holds a worker thread as long as it is open. The last ``reserve`` threads of a process never serve
consoles, so that the process still answers other requests. With gunicorn, at most
``workers * (threads - reserve)`` consoles are open at a time, and further ones are refused as "busy". A full
process refuses them even if others have room. So with several workers, let the kernel spread the clients
(``--reuse-port``).
"""

from __future__ import annotations

from .app import ConsoleApp, Wanted

__all__ = ["ConsoleApp", "Wanted"]
