"""Consoles inside a WSGI application: under werkzeug's development server, and gunicorn's gthread workers.

::

    application = ConsoleApp(config, application)     # consoles under config's host_path_prefix

A console holds a worker thread as long as it is open. So that ordinary requests are still answered, the last
``reserve`` threads of a process never serve consoles: with gunicorn at most ``workers * (threads - reserve)``
consoles can be open at a time, and what comes beyond is refused as "busy". A process that is full refuses
even while others have room, so with several workers let the kernel spread the clients (``--reuse-port``).
"""

from __future__ import annotations

from .app import ConsoleApp, Wanted

__all__ = ["ConsoleApp", "Wanted"]
