"""Test doubles for a console gateway: a Kubernetes API with VMs, a desktop, clients, and test cases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from ..tokens import make_token
    from .case import SECRET, LeakTestCase, ProxyTestCase, proxy_options
    from .certificates import CertificateAuthority
    from .console_errors import ConsoleClosed, ConsoleRefused, RFBRefused, UpgradeRefused
    from .desktop import Desktop
    from .fake_kubevirt import FakeKubeVirtAPI
    from .image import Image
    from .keysyms import KEYSYMS
    from .kubevirt_backends import Backend, Echo, Script, SocketBackend, Stream, TCPBackend, UnixBackend
    from .kubevirt_console import FakeConsole
    from .kubevirt_http import Answer, Behaviour, RecordedRequest, status_answer
    from .kubevirt_vmi import FakeVMI
    from .leaks import LeakCheck
    from .login_shell import LoginShell
    from .picture_asserts import assert_same_picture, assert_shows, assert_shows_colour
    from .raw_client import RawClient, client_context
    from .rfb_client import RFBClient
    from .rfb_viewer import PictureTimeout, RFBViewer
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "Answer": ".kubevirt_http",
            "Backend": ".kubevirt_backends",
            "Behaviour": ".kubevirt_http",
            "CertificateAuthority": ".certificates",
            "ConsoleClosed": ".console_errors",
            "ConsoleRefused": ".console_errors",
            "Desktop": ".desktop",
            "Echo": ".kubevirt_backends",
            "FakeConsole": ".kubevirt_console",
            "FakeKubeVirtAPI": ".fake_kubevirt",
            "FakeVMI": ".kubevirt_vmi",
            "Image": ".image",
            "KEYSYMS": ".keysyms",
            "LeakCheck": ".leaks",
            "LeakTestCase": ".case",
            "LoginShell": ".login_shell",
            "PictureTimeout": ".rfb_viewer",
            "ProxyTestCase": ".case",
            "RFBClient": ".rfb_client",
            "RFBRefused": ".console_errors",
            "RFBViewer": ".rfb_viewer",
            "RawClient": ".raw_client",
            "RecordedRequest": ".kubevirt_http",
            "SECRET": ".case",
            "Script": ".kubevirt_backends",
            "SocketBackend": ".kubevirt_backends",
            "Stream": ".kubevirt_backends",
            "TCPBackend": ".kubevirt_backends",
            "UnixBackend": ".kubevirt_backends",
            "UpgradeRefused": ".console_errors",
            "assert_same_picture": ".picture_asserts",
            "assert_shows": ".picture_asserts",
            "assert_shows_colour": ".picture_asserts",
            "client_context": ".raw_client",
            "make_token": "..tokens",
            "proxy_options": ".case",
            "status_answer": ".kubevirt_http",
        },
    )

__all__ = [
    "KEYSYMS",
    "SECRET",
    "Answer",
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
