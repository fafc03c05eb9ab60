"""The keys of a running proxy: those of its settings, of files that may change, and of a JWK Set."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from ..exceptions import ConfigError
from ..net.resolver import Resolver
from ..net.tls_context import ClientTLS
from ..runtime.deadline import Deadline
from ..runtime.reloading import Reloaded, file_fault
from .jwks import JWKSLocation, parse_jwks
from .jwks_client import JWKSClient, fetch_jwks
from .keys import Keyring, VerificationKey, load_keys

__all__ = ["KeyRules", "KeyStore", "read_key_file"]

Keys = tuple[VerificationKey, ...]


@dataclass(frozen=True)
class KeyRules:
    """Where the keys are, as the settings say.

    :ivar keyring: the keys that stand in the settings themselves.
    :ivar algorithms: JWS algorithms that keys may be used for at most; None for HS256 with secrets, and for
        all that a public key is for.
    :ivar files: files that each hold an HMAC secret or PEM public keys.
    :ivar jwks: where a JWK Set is, None for none.
    :ivar jwks_interval: seconds from one fetch of it to the next.
    :ivar jwks_ca_file: authorities for its URL, None for the system's.
    """

    keyring: Keyring
    algorithms: Sequence[str] | None = None
    files: Sequence[str] = ()
    jwks: JWKSLocation | None = None
    jwks_interval: float = 300.0
    jwks_ca_file: str | None = None


class KeyStore:
    """A :class:`.KeySource`. Safe from every thread.

    Key files are looked at for each token, so that a key that was taken out is refused from then on. One that
    cannot be read leaves its keys as they were.

    :param rules: where the keys are; files are read at once.
    :param resolver: for the host of a JWK Set.
    :raises ConfigError: if a file cannot be used, or none has a key and there is no URL.
    """

    def __init__(self, rules: KeyRules, resolver: Resolver) -> None:
        algorithms, location = rules.algorithms, rules.jwks
        self._files = [
            Reloaded(f"the key file {path}", [path], partial(_read_keys, path, algorithms))
            for path in rules.files
        ]
        named = [("SECRET_KEY_FILE", path) for path in rules.files]
        self._url: JWKSClient | None = None
        if location and location.path:
            read = partial(_read_jwks, location.path, algorithms)
            self._files.append(Reloaded(f"the JWK Set {location.path}", [location.path], read))
            named.append(("WSPROXY_JWKS", location.path))
        elif location:
            fetch = fetch_jwks(location, resolver, ClientTLS({"ca_certs": rules.jwks_ca_file}))
            self._url = JWKSClient(location.text, fetch, algorithms, rules.jwks_interval)
        # Guards the attributes below.
        self._lock = threading.Lock()
        self._fixed = rules.keyring.keys
        self._parts: list[Keys] = [self._fixed]
        self._ring = rules.keyring
        self._check_files(named)

    def start(self, owner: object) -> None:
        """Start what fetches keys, if there is anything to fetch. Once only; does not block."""
        if self._url:
            self._url.start(owner)

    def load(self, deadline: Deadline) -> None:
        """Fetch what is at a URL, instead of starting what does. Blocks until the deadline.

        :raises OSError, TransportClosed, ValueError: as :func:`.fetch`, if there are no keys to be had.
        """
        if self._url:
            self._url.load(deadline)

    def reload(self) -> None:
        """Read all files again, and have a set at a URL fetched. Blocks on the file system only."""
        for file in self._files:
            file.reload()
        if self._url:
            self._url.refresh()

    def stop_waiting(self) -> None:
        """Let nobody wait for a key, now and later. Does not block. Idempotent."""
        if self._url:
            self._url.stop_waiting()

    def stop(self) -> None:
        """End what fetches keys. Idempotent."""
        if self._url:
            self._url.stop()

    def current(self) -> Keyring:
        """See :class:`.KeySource`. Blocks on the file system only."""
        if not self._files and not self._url:
            return self._ring
        parts = [self._fixed, *(file.get() for file in self._files)]
        if self._url:
            parts.append(self._url.keys)
        with self._lock:
            if list(map(id, parts)) != list(map(id, self._parts)):
                self._parts, self._ring = parts, Keyring(key for part in parts for key in part)
            return self._ring

    def await_key(self, kid: str | None, deadline: Deadline | None) -> None:
        """See :class:`.KeySource`: only what is at a URL may come yet."""
        if self._url:
            self._url.await_key(kid, deadline)

    def _check_files(self, named: Sequence[tuple[str, str]]) -> None:
        """Read every file once.

        :param named: the setting that names each, and its path.
        """
        faults: list[str] = []
        for (setting, path), file in zip(named, self._files, strict=True):
            try:
                file.get()
            except ConfigError as exc:
                faults += exc.faults
            except OSError as exc:
                faults.append(file_fault(setting, path, exc))
            except ValueError as exc:
                faults.append(str(exc))
        if not faults and not self._url and not self.current().keys:
            faults.append("WSPROXY_JWKS has no key that tokens can be verified with")
        if faults:
            raise ConfigError(faults)


def read_key_file(path: str) -> bytes:
    """Return a key file's content without the line break at its end, which an editor has put there.

    :raises OSError: if it cannot be read.
    """
    with open(path, "rb") as file:
        return file.read().rstrip(b"\r\n")


def _read_keys(path: str, algorithms: Sequence[str] | None) -> Keys:
    return load_keys(read_key_file(path), algorithms, f"the key file {path}")


def _read_jwks(path: str, algorithms: Sequence[str] | None) -> Keys:
    with open(path, "rb") as file:
        raw = file.read()
    try:
        return parse_jwks(raw, algorithms, symmetric=True)
    except ValueError as exc:
        raise ValueError(f"the JWK Set {path}: {exc}") from None
