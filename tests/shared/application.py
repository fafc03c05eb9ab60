"""What gunicorn serves in the table: consoles by themselves, and in front of another application."""

from __future__ import annotations

import os

from tests.integration.wsgi_application import hello
from wsproxy.config import config_from_env
from wsproxy.wsgi.app import ConsoleApp

_config = config_from_env(os.environ)
by_itself = ConsoleApp(_config)
in_front = ConsoleApp(_config, hello)
