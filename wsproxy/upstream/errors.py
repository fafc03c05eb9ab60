"""Translates refusals of the Kubernetes API for clients. No I/O."""

from __future__ import annotations

import json
import re

from ..exceptions import ConsoleBusy, Refused, UpstreamRefused, VMINoConsole, VMINotFound, VMINotRunning
from ..protocol.strict_json import nested_deeper_than

__all__ = ["refusal_of"]

_MAX_API_TEXT = 120
_MAX_STATUS_BRACKETS = 500

# Texts that virt-api sends with status 500 although another status fits, by the status that fits.
_MEANT = {
    400: re.compile(r"VMI is not running|No graphics devices are present\."),
    404: re.compile(r'virtualmachineinstance\.kubevirt\.io "[a-z0-9.-]+" not found'),
}
# KubeVirt 1.6.3 and 1.7.0 send this if a console is in use, and also if another fault keeps it closed.
_VAGUE = re.compile(r"(Internal error occurred: )?dialing virt-handler: websocket: bad handshake")


def refusal_of(status: int, body: bytes) -> Refused:
    """Translate a refusal of the Kubernetes API or of KubeVirt into an exception for the client.

    The client gets only texts about the VMI itself. The text of a 401, 403 or 5xx may name the service
    account or parts of the cluster, so it goes to the log only.

    :param status: the response's HTTP status, other than 101.
    :param body: its body, usually a ``Status`` object (Kubernetes API conventions).
    """
    text, answered = _text_of(body), status
    if status == 500:
        status = next((meant for meant, known in _MEANT.items() if known.fullmatch(text)), status)
    low = text.lower()
    shown = text.encode()[:_MAX_API_TEXT].decode(errors="ignore")
    detail = f"HTTP {answered} from the API: {text[:500]}"
    if status == 404 and "virtualmachineinstance" in low and "not found" in low:
        return VMINotFound(shown, log_detail=detail)
    if status in (400, 409):
        if "no graphics devices" in low or "no serial consoles" in low:
            return VMINoConsole(shown, log_detail=detail)
        if "not running" in low or "failed status" in low or "paused" in low or "phase is" in low:
            return VMINotRunning(shown, log_detail=detail)
        return UpstreamRefused(f"the Kubernetes API refused: {shown}", log_detail=detail)
    if "active vnc connection" in low:
        return ConsoleBusy("Active VNC connection. Request denied.", log_detail=detail)
    if _VAGUE.fullmatch(text):
        refused = UpstreamRefused("the Kubernetes API refused", log_detail=detail)
        refused.maybe_in_use = True
        return refused
    if status == 404:
        return UpstreamRefused(f"the Kubernetes API refused: {shown}", log_detail=detail)
    return UpstreamRefused("the Kubernetes API refused", log_detail=detail)


def _text_of(body: bytes) -> str:
    """Return the message of a Status object, or the body itself, as one line without control characters."""
    text = body.decode(errors="replace")
    try:
        status = None if nested_deeper_than(_MAX_STATUS_BRACKETS, body) else json.loads(text)
        if isinstance(status, dict) and isinstance(status.get("message"), str):
            text = status["message"].encode(errors="replace").decode()  # "\\ud800" is JSON, but not UTF-8
    except ValueError:
        pass
    # isprintable() is False for control characters, line breaks, and marks that reverse the text direction.
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
