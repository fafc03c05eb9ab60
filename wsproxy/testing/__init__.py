"""Test doubles for a console gateway: a Kubernetes API with VMs, a desktop, clients, and test cases."""

from __future__ import annotations

from ..tokens import make_token
from .case import SECRET, LeakTestCase, ProxyTestCase
from .certificates import CertificateAuthority
from .desktop import Desktop
from .fake_kubevirt import FakeKubeVirtAPI
from .kubevirt_backends import Echo, Script, SocketBackend, Stream, TCPBackend, UnixBackend
from .kubevirt_console import FakeConsole
from .kubevirt_http import Answer, Behaviour, RecordedRequest
from .kubevirt_vmi import FakeVMI
from .png import Image
from .raw_client import RawClient, client_context
from .rfb_client import ConsoleClosed, RFBClient, RFBRefused, UpgradeRefused

__all__ = [
    "SECRET",
    "Answer",
    "Behaviour",
    "CertificateAuthority",
    "ConsoleClosed",
    "Desktop",
    "Echo",
    "FakeConsole",
    "FakeKubeVirtAPI",
    "FakeVMI",
    "Image",
    "LeakTestCase",
    "ProxyTestCase",
    "RFBClient",
    "RFBRefused",
    "RawClient",
    "RecordedRequest",
    "Script",
    "SocketBackend",
    "Stream",
    "TCPBackend",
    "UnixBackend",
    "UpgradeRefused",
    "client_context",
    "make_token",
]
