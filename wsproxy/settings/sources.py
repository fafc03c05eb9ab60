"""Collects settings from flags, the environment, a file or a dict, and chooses which counts. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..exceptions import ConfigError
from ..kinds import FAULTY
from ..net.addresses import host_and_port
from .service_links import is_port, without_service_links
from .setting import PREFIX, Setting
from .table import BY_NAME, SETTINGS, meant
from .upstream import KUBERNETES_HOST, KUBERNETES_PORT, WS_REMOTE_URL

__all__ = ["Choice", "Given", "Layer", "choose", "of_environment", "of_file", "of_flags", "of_mapping"]

_BY_VARIABLE = {setting.env: setting for setting in SETTINGS}
_BY_ANY_NAME = BY_NAME | {setting.env: setting for setting in BY_NAME.values() if setting.env}
_NOT_IN_A_POD = (
    "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set; run in a cluster, "
    "or set LOCAL_DEV_MODE=true"
)
_NO_URL = "remote_url is missing; give the URL of the Kubernetes API, such as wss://10.96.0.1:443"


@dataclass(frozen=True)
class Given:
    """A value that a user gave.

    :ivar name: the setting's name in that source: ``PORT``, ``--port``, ``port``.
    :ivar value: the value as given. If it is text, it still has to be converted to the setting's kind.
    :ivar origin: the source, as ``wsproxy config`` prints it.
    :ivar injected: whether Kubernetes injects the variable into every pod, so that no user wrote it.
    """

    name: str
    value: object
    origin: str
    injected: bool = False

    def read(self, setting: Setting) -> Any:
        """Return the value in the form of its kind.

        :raises ConfigError: if it is not of that kind, or not allowed.
        """
        value = self.value
        if isinstance(value, str):
            value = setting.parse(value, self.name)
        return setting.checked(value, self.name)


Layer = Mapping[str, Given]
"""The values from one source, by the settings' own names."""


@dataclass(frozen=True)
class Choice:
    """The values that count.

    :ivar values: by field of :class:`.Config`; :data:`.FAULTY` if the fault has been reported already.
    :ivar origins: the source of each value.
    """

    values: dict[str, Any]
    origins: dict[str, str]


def of_flags(flags: Mapping[str, str | None], faults: list[str]) -> Layer:
    """Return the values that flags give.

    :param flags: by the names of the variables; None for flags that were not given.
    :param faults: gets a sentence for each name that is not a setting.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    _refuse_unknown(given, faults)
    return {
        setting.name: Given(setting.flag, given[name], f"flag {setting.flag}")
        for name, setting in _BY_VARIABLE.items()
        if name in given
    }


def of_environment(environ: Mapping[str, str], faults: list[str]) -> Layer:
    """Return the values that variables give. Empty variables are ignored, except ``SECRET_KEY``.

    :param faults: gets a sentence for each name that begins with ``WSPROXY_`` and is not a setting.
    """
    given = {
        name: value for name, value in without_service_links(environ).items() if value or name == "SECRET_KEY"
    }
    _refuse_unknown(given, faults)
    return {
        setting.name: Given(
            name, given[name], f"environment {name}", setting in (KUBERNETES_HOST, KUBERNETES_PORT)
        )
        for name, setting in _BY_VARIABLE.items()
        if name in given
    }


def _refuse_unknown(given: Iterable[str], faults: list[str]) -> None:
    faults += [
        f"{name} is not a setting; {meant(name, _BY_VARIABLE) or 'see wsproxy serve --help'}"
        for name in sorted(given)
        if name.startswith(PREFIX) and name not in _BY_VARIABLE
    ]


def of_file(path: str, content: Mapping[str, object], faults: list[str]) -> Layer:
    """Return the values that a file gives. Each key must be the name of a setting.

    :param faults: gets a sentence for each key that is not one.
    """
    found: dict[str, Given] = {}
    for name, value in content.items():
        if name in BY_NAME:
            found[name] = Given(f"{name} in {path}", value, f"{path}, key {name}")
        else:
            question = meant(name, BY_NAME) or "docs/reference/settings.md lists the settings"
            faults.append(f"{name!r} in {path} is not a setting; {question}")
    return found


def of_mapping(given: Mapping[str, object], faults: list[str]) -> Layer:
    """Return the values that a dict gives. None and empty text are ignored.

    :param given: values by the names of settings, or of variables.
    :param faults: gets a sentence for each key that is not a setting, or names the same setting again.
    """
    found: dict[str, Given] = {}
    for name, value in given.items():
        setting = _BY_ANY_NAME.get(name)
        if setting is None:
            question = meant(name, _BY_ANY_NAME)
            faults.append("; ".join(filter(None, (f"{name!r} is not a setting", question))))
        elif value is None or value == "":
            continue
        elif setting.name in found:
            faults.append(f"{found[setting.name].name} and {name} are the same setting; give one")
        else:
            if setting is KUBERNETES_PORT and type(value) is int:
                value = str(value)
            found[setting.name] = Given(name, value, name)
    return found


def choose(layers: Sequence[Layer], faults: list[str]) -> Choice:
    """Return the values that count: for each setting, the value in the first layer that has one.

    :param faults: gets a sentence for each wrong value, and for settings in one layer that contradict each
        other.
    """
    found: dict[str, Given] = {}
    for layer in reversed(layers):
        found |= layer
    rank = {name: min(i for i, layer in enumerate(layers) if name in layer) for name in found}
    choice = Choice({}, {name: given.origin for name, given in found.items()})
    for name, given in found.items():
        if name == "config":
            continue  # its file has been read already
        try:
            choice.values[name] = given.read(BY_NAME[name])
        except ConfigError as exc:
            faults += exc.faults
            choice.values[name] = FAULTY
    choice.values.setdefault("secret_key", "")
    _join_ca_file(choice, found, rank, faults)
    _join_url(choice, found, rank, faults)
    return choice


def _join_ca_file(choice: Choice, found: Layer, rank: Mapping[str, int], faults: list[str]) -> None:
    """Put ``ca_file`` into ``sslopt``, of which it is a part."""
    if "ca_file" not in found:
        return
    file, options = choice.values.pop("ca_file"), choice.values.get("sslopt", {})
    origin = choice.origins.pop("ca_file")
    if rank.get("sslopt") == rank["ca_file"]:
        faults.append(
            f"{found['ca_file'].name} and sslopt are both given; name the file in sslopt, as ca_certs"
        )
        return
    known = FAULTY not in (file, options)
    choice.values["sslopt"] = {**options, "ca_certs": file} if known else FAULTY
    choice.origins["sslopt"] = "; ".join(filter(None, (origin, choice.origins.get("sslopt"))))


def _join_url(choice: Choice, found: Layer, rank: Mapping[str, int], faults: list[str]) -> None:
    """Make ``remote_url`` from the settings that give the API's host and port, or its URL for development."""
    values, dev = choice.values, bool(choice.values.get("local_dev_mode"))
    parts = {
        setting: values.pop(setting.name)
        for setting in (WS_REMOTE_URL, KUBERNETES_HOST, KUBERNETES_PORT)
        if setting.name in found
    }
    used = [one for one in parts if (one is WS_REMOTE_URL) == dev]
    origins = [choice.origins[one.name] for one in used]
    for one in parts:
        del choice.origins[one.name]
    if "remote_url" in found:
        if beside := [found[one.name].name for one in parts if rank[one.name] == rank["remote_url"]]:
            faults.append(f"remote_url and {' and '.join(beside)} are both given; give remote_url alone")
            return
        if not any(rank[one.name] < rank["remote_url"] and not found[one.name].injected for one in used):
            return
    choice.origins["remote_url"] = " and ".join(origins) or "default"
    if FAULTY in parts.values():
        values["remote_url"] = FAULTY
    else:
        values["remote_url"] = _url(parts, dev, found, faults)


def _url(parts: Mapping[Setting, Any], dev: bool, found: Layer, faults: list[str]) -> Any:
    if dev:
        return parts.get(WS_REMOTE_URL, WS_REMOTE_URL.default)
    host, port = parts.get(KUBERNETES_HOST), parts.get(KUBERNETES_PORT)
    if not host or not port:
        by_variables = all(given.name.isupper() or given.name.startswith("--") for given in found.values())
        faults.append(_NOT_IN_A_POD if by_variables else _NO_URL)
        return FAULTY
    if not is_port(port) or not 0 < int(port) < 65536:
        faults.append(f"{found[KUBERNETES_PORT.name].name} is {port!r}; it must be 1 to 65535")
        return FAULTY
    return f"wss://{host_and_port(host, port)}"
