"""The keys of a running proxy: from its settings, from files that may change, and from a JWK Set."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from ..exceptions import ConfigError
from ..net.resolver import Resolver
from ..net.shared_copy import ALONE, CopyOf, SharedCopy
from ..net.tls_context import ClientTLS
from ..runtime.deadline import Deadline
from ..runtime.reloading import Reloaded, file_fault
from .jwks import JWKSLocation, parse_jwks
from .jwks_client import MOST_SECONDS, JWKSClient, fetch_jwks, set_name
from .keys import Keyring, VerificationKey, load_keys
from .spellings import mistaken_for_secret

__all__ = ["KeyRules", "KeyStore", "read_key_file"]

Keys = tuple[VerificationKey, ...]

_MOST_BREAKS = 8  # bytes at the end of a file that a key may have; more is no accident


@dataclass(frozen=True)
class KeyRules:
    """The places of the keys, from the settings.

    :ivar keyring: the keys in the settings themselves.
    :ivar algorithms: the only JWS algorithms to use keys for. None means HS256 for secrets, and all its
        algorithms for a public key.
    :ivar files: files that each hold an HMAC secret or PEM public keys.
    :ivar jwks: the place of a JWK Set, None without one.
    :ivar jwks_interval: seconds from one fetch of the set to the next.
    :ivar jwks_ca_file: file of CAs for the set's URL, None for the system's CAs.
    """

    keyring: Keyring
    algorithms: Sequence[str] | None = None
    files: Sequence[str] = ()
    jwks: JWKSLocation | None = None
    jwks_interval: float = 300.0
    jwks_ca_file: str | None = None


class KeyStore:
    """A :class:`.KeySource`. Safe from every thread.

    Each token causes a check of the key files. So the proxy refuses a key as soon as an operator removes it
    from its file. If a file cannot be read, its last keys stay in use.

    :param rules: the places of the keys; files are read at once.
    :param resolver: resolves the host of a JWK Set's URL.
    :raises ConfigError: if a file cannot be used, or if there is neither a key nor a URL.
    """

    def __init__(self, rules: KeyRules, resolver: Resolver) -> None:
        self._rules = rules
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

    def start(self, owner: object, copy_of: CopyOf = lambda *_: ALONE) -> None:
        """Start the thread that fetches keys, if there is a URL. Once only; does not block.

        :param copy_of: how the thread learns what other processes have fetched.
        """
        if self._url:
            self._url.start(owner, lambda: self._copy(copy_of))

    def _copy(self, copy_of: CopyOf) -> SharedCopy:
        """Return what processes with the same URL and the same authorities have together."""
        rules = self._rules
        assert rules.jwks is not None
        try:
            name = set_name(rules.jwks, rules.jwks_ca_file)
        except OSError:
            return ALONE  # the fetch says what is wrong
        return copy_of(name, MOST_SECONDS, rules.jwks_interval)

    def load(self, deadline: Deadline) -> None:
        """Fetch a JWK Set at a URL in the calling thread, without :meth:`start`. Blocks until the deadline.

        :raises OSError, TransportClosed, ValueError: as :meth:`.JWKSClient.load`.
        """
        if self._url:
            self._url.load(deadline)

    def reload(self) -> None:
        """Read all files again, and have the thread fetch a set at a URL. Blocks on the file system only."""
        for file in self._files:
            file.reload()
        if self._url:
            self._url.refresh()

    def stop_waiting(self) -> None:
        """End all waits for keys, also later ones. Does not block. Idempotent."""
        if self._url:
            self._url.stop_waiting()

    def stop(self) -> None:
        """End the thread that fetches keys, and wait for it. Idempotent."""
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
        """See :class:`.KeySource`. Only a set at a URL can bring new keys."""
        if self._url:
            self._url.await_key(kid, deadline)

    def _check_files(self, named: Sequence[tuple[str, str]]) -> None:
        """Read every file once.

        :param named: for each file the setting that names it, and its path.
        :raises ConfigError: with all faults.
        """
        faults: list[str] = []
        for (setting, path), file in zip(named, self._files, strict=True):
            try:
                file.get()
            except ConfigError as exc:
                faults += [f"{setting}: {fault}" for fault in exc.faults]
            except OSError as exc:
                faults.append(file_fault(setting, path, exc))
            except ValueError as exc:
                faults.append(f"{setting}: {exc}; name a file with a JWK Set (RFC 7517 section 5)")
        if not faults and not self._url and not self.current().keys:
            faults.append("WSPROXY_JWKS has no key that can verify tokens")
        if faults:
            raise ConfigError(faults)


def read_key_file(path: str) -> bytes:
    """Return a key file's content without line breaks at its end, which editors add. Blocks on the disk only.

    A binary form of a key may end with such bytes. It keeps them, so that it is recognised.

    :raises OSError: if it cannot be read.
    """
    with open(path, "rb") as file:
        raw = file.read()
    secret = raw.rstrip(b"\r\n")
    ends = range(len(secret) + 1, min(len(raw), len(secret) + _MOST_BREAKS) + 1)
    binary = () if raw.isascii() else (raw[:end] for end in ends)
    return next(filter(mistaken_for_secret, binary), secret)


def _read_keys(path: str, algorithms: Sequence[str] | None) -> Keys:
    return load_keys(read_key_file(path), algorithms, f"the key file {path}")


def _read_jwks(path: str, algorithms: Sequence[str] | None) -> Keys:
    with open(path, "rb") as file:
        raw = file.read()
    try:
        return parse_jwks(raw, algorithms, symmetric=True)
    except ValueError as exc:
        raise ValueError(f"the JWK Set {path}: {exc}") from None
