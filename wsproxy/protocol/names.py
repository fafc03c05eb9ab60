"""Checks names as Kubernetes does (DNS-1123). No I/O."""

from __future__ import annotations

import re

__all__ = ["is_dns_label", "is_dns_subdomain"]

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DNS_LABEL = re.compile(_LABEL)
_MAX_LABEL = 63
_DNS_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_MAX_SUBDOMAIN = 253


def is_dns_label(name: str) -> bool:
    """Whether ``name`` is a valid name for a Kubernetes namespace (DNS-1123 label)."""
    return len(name) <= _MAX_LABEL and _DNS_LABEL.fullmatch(name) is not None


def is_dns_subdomain(name: str) -> bool:
    """Whether ``name`` is valid for a virtual machine instance (DNS-1123 subdomain, as Kubernetes has it)."""
    return len(name) <= _MAX_SUBDOMAIN and _DNS_SUBDOMAIN.fullmatch(name) is not None
