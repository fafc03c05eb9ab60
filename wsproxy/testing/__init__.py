"""Test doubles for a console gateway: a simulated cluster with VMs, clients, and test cases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..runtime.lazy_imports import lazy_names

if TYPE_CHECKING:
    from ..tokens.issue import make_token
    from .application import ApplicationServer
    from .case import SECRET, LeakTestCase, ProxyTestCase, proxy_options
    from .kubevirt.api import FakeKubeVirtAPI
    from .kubevirt.backends import Backend, Echo, Script, SocketBackend, Stream, TCPBackend, UnixBackend
    from .kubevirt.certificates import CertificateAuthority
    from .kubevirt.console import FakeConsole
    from .kubevirt.http import Answer, Behaviour, RecordedRequest, status_answer
    from .kubevirt.vmi import FakeVMI
    from .leaks import LeakCheck
    from .rfb.client import RFBClient
    from .rfb.errors import ConsoleClosed, ConsoleRefused, RFBRefused, UpgradeRefused
    from .rfb.keysyms import KEYSYMS
    from .rfb.raw_client import RawClient, client_context
    from .rfb.viewer import PictureTimeout, RFBViewer
    from .screen.desktop import Desktop
    from .screen.image import Image
    from .screen.login_shell import LoginShell
    from .screen.picture_asserts import assert_same_picture, assert_shows, assert_shows_colour
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "Answer": ".kubevirt.http",
            "ApplicationServer": ".application",
            "Backend": ".kubevirt.backends",
            "Behaviour": ".kubevirt.http",
            "CertificateAuthority": ".kubevirt.certificates",
            "ConsoleClosed": ".rfb.errors",
            "ConsoleRefused": ".rfb.errors",
            "Desktop": ".screen.desktop",
            "Echo": ".kubevirt.backends",
            "FakeConsole": ".kubevirt.console",
            "FakeKubeVirtAPI": ".kubevirt.api",
            "FakeVMI": ".kubevirt.vmi",
            "Image": ".screen.image",
            "KEYSYMS": ".rfb.keysyms",
            "LeakCheck": ".leaks",
            "LeakTestCase": ".case",
            "LoginShell": ".screen.login_shell",
            "PictureTimeout": ".rfb.viewer",
            "ProxyTestCase": ".case",
            "RFBClient": ".rfb.client",
            "RFBRefused": ".rfb.errors",
            "RFBViewer": ".rfb.viewer",
            "RawClient": ".rfb.raw_client",
            "RecordedRequest": ".kubevirt.http",
            "SECRET": ".case",
            "Script": ".kubevirt.backends",
            "SocketBackend": ".kubevirt.backends",
            "Stream": ".kubevirt.backends",
            "TCPBackend": ".kubevirt.backends",
            "UnixBackend": ".kubevirt.backends",
            "UpgradeRefused": ".rfb.errors",
            "assert_same_picture": ".screen.picture_asserts",
            "assert_shows": ".screen.picture_asserts",
            "assert_shows_colour": ".screen.picture_asserts",
            "client_context": ".rfb.raw_client",
            "make_token": "..tokens",
            "proxy_options": ".case",
            "status_answer": ".kubevirt.http",
        },
    )

__all__ = [
    "KEYSYMS",
    "SECRET",
    "Answer",
    "ApplicationServer",
    "Backend",
    "Behaviour",
    "CertificateAuthority",
    "ConsoleClosed",
    "ConsoleRefused",
    "Desktop",
    "Echo",
    "FakeConsole",
    "FakeKubeVirtAPI",
    "FakeVMI",
    "Image",
    "LeakCheck",
    "LeakTestCase",
    "LoginShell",
    "PictureTimeout",
    "ProxyTestCase",
    "RFBClient",
    "RFBRefused",
    "RFBViewer",
    "RawClient",
    "RecordedRequest",
    "Script",
    "SocketBackend",
    "Stream",
    "TCPBackend",
    "UnixBackend",
    "UpgradeRefused",
    "assert_same_picture",
    "assert_shows",
    "assert_shows_colour",
    "client_context",
    "make_token",
    "proxy_options",
    "status_answer",
]
