"""A lab platform that has wsproxy in its own process: what its type checker makes of our types."""

from __future__ import annotations

import logging
import os
from dataclasses import replace

from lab_orchestrator_ws_proxy_lib.ws_proxy_lib import WebsocketProxy as OriginalName

from wsproxy import (
    AccessRequest,
    Authorize,
    Config,
    ConfigError,
    Ending,
    Forbidden,
    Grant,
    OnOpen,
    SessionHandle,
    WebsocketProxy,
    config_from_mapping,
    make_token,
)

logger = logging.getLogger("lab")


def authorize(grant: Grant, request: AccessRequest) -> Grant | None:
    """Let students into the machines that they have booked."""
    if request.vmi not in grant.vmis:
        raise Forbidden("you have not booked this machine")
    return replace(grant, expires_at=(grant.expires_at or 0.0) - 1.0)


def opened(session: SessionHandle) -> None:
    logger.info("%s opened %s/%s", session.user, session.namespace, session.vmi)


def closed(session: SessionHandle, ending: Ending) -> None:
    logger.info("%s: %d bytes", session.id, session.bytes_up + session.bytes_down)


class Consoles:
    """The platform's consoles."""

    def __init__(self, secret: str, remote_url: str) -> None:
        self._secret = secret
        may_open: Authorize = authorize
        on_open: OnOpen = opened
        path = "/{namespace}/{vmi_name}"
        self.proxy: WebsocketProxy = OriginalName(
            remote_url, path, True, secret, authorize=may_open, on_open=on_open, on_close=closed
        )

    def start(self) -> tuple[str, int]:
        return self.proxy.run_in_thread("127.0.0.1", 0).address

    def url(self, student: str, machine: str) -> str:
        token: str = make_token(self._secret, namespace="lab", vmis=[machine], user=student, expires_in=60)
        return self.proxy.console_url(token, machine)

    def kick(self, student: str) -> int:
        sessions: list[SessionHandle] = [one for one in self.proxy.sessions() if one.user == student]
        for session in sessions:
            session.close()
        return len(sessions)


def of_settings() -> WebsocketProxy:
    try:
        config: Config = config_from_mapping(dict(os.environ))
    except ConfigError as fault:
        raise SystemExit(str(fault)) from fault
    return WebsocketProxy.from_config(config, authorize)
