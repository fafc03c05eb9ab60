"""Wrong settings of every kind: one sentence with the name and the remedy, whichever way they are given."""

from __future__ import annotations

import contextlib
import io
import math
import tempfile
import unittest
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from tests.test_config import SECRET
from wsproxy import Config, ConfigError, WebsocketProxy, config_from_env, config_from_mapping
from wsproxy.cli import main
from wsproxy.settings.table import BY_NAME

_POD = {"SECRET_KEY": SECRET, "KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
_LIBRARY = {"remote_url": "wss://10.96.0.1:443", "secret_key": SECRET}
_WHOLE = "it must be a whole number"
_FILE = "mount or make it there, or name another file"
_TLS_FILES = "tls_cert, tls_key and tls_client_ca have to name PEM files"


@dataclass(frozen=True)
class Wrong:
    """Settings with one fault.

    :ivar text: by name, as a variable and a flag have them.
    :ivar fault: what is told; ``{}`` stands for what the person calls the first of them.
    :ivar value: by name, as a file and Python have them; by default the same texts.
    :ivar fault_of_value: what is told of these, if it is something else.
    :ivar without: what else is left out of settings that are right.
    """

    text: Mapping[str, str]
    fault: str
    value: Mapping[str, Any] = field(default_factory=dict)
    fault_of_value: str = ""
    without: tuple[str, ...] = ()


MISSING = (
    Wrong(
        {"local_dev_mode": "false"},
        "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set; run in a cluster, "
        "or set LOCAL_DEV_MODE=true",
        {"local_dev_mode": False},
        "remote_url is missing; give the URL of the Kubernetes API, such as wss://10.96.0.1:443",
        without=("remote_url", "kubernetes_service_host", "kubernetes_service_port"),
    ),
    Wrong({"secret_key": ""}, "SECRET_KEY is empty; give the secret that the tokens are signed with"),
    Wrong(
        {"namespaces": ","},
        "{} is ','; it must name at least one",
        {"namespaces": []},
        "{} is an empty list; name at least one, or leave it out for no restriction",
    ),
    Wrong(
        {"secret_key_files": ","},
        "{} is ','; it must name at least one",
        {"secret_key_files": [""]},
        "{} has an empty item; remove it",
    ),
    Wrong(
        {"audience": " "},
        "{} is ' '; it must name at least one",
        {"audience": []},
        "{} is an empty list; name at least one, or leave it out for no restriction",
    ),
)

WRONG_TYPE = (
    Wrong(
        {"port": "many"},
        f"{{}} is 'many'; {_WHOLE}",
        {"port": True},
        "{} must be a whole number, but is of type bool",
    ),
    Wrong(
        {"max_sessions": "2.5"},
        f"{{}} is '2.5'; {_WHOLE}",
        {"max_sessions": 2.5},
        "{} must be a whole number, but is of type float",
    ),
    Wrong(
        {"dial_timeout": "10s"},
        "{} is '10s'; it must be a number of seconds",
        {"dial_timeout": [10]},
        "{} must be a number, but is of type list",
    ),
    Wrong(
        {"tickets": "perhaps"},
        "{} is 'perhaps'; it must be true or false",
        {"tickets": 1},
        "{} must be true or false, but is of type int",
    ),
    Wrong(
        {"allow_eternal_tokens": "2"},
        "{} is '2'; it must be true or false",
        {"allow_eternal_tokens": 2},
        "{} must be true or false, but is of type int",
    ),
    Wrong(
        {"workers": "two"},
        f"{{}} is 'two'; {_WHOLE}",
        {"workers": 2.0},
        "{} must be a whole number, but is of type float",
    ),
    Wrong(
        {"max_frame_size": "16M"},
        f"{{}} is '16M'; {_WHOLE}",
        {"max_frame_size": 1e7},
        "{} must be a whole number, but is of type float",
    ),
    Wrong(
        {"grace": "for ever"},
        "{} is 'for ever'; it must be a number of seconds",
        {"grace": True},
        "{} must be a number, but is of type bool",
    ),
)

_URL = "it must be memory, local:PATH, or a URL such as redis://HOST:6379/0"
_ENCODE = "percent-encode the characters @ / ? # of user and password, such as %40 for @"
_DB = "its database must be a number, 0 to 9999"

_STATES = (
    ("sqlite:///x", "'sqlite:///x'", _URL),
    ("redis.example:6379", "'redis.example:6379'", _URL),
    ("Memory", "'Memory'", "did you mean memory?"),
    ("local", "'local'", "did you mean local:PATH?"),
    ("reddis://h", "'reddis://h'", "did you mean redis://HOST:PORT/DB?"),
    ("valkey://:hunter2@h", "'...@h'", "did you mean redis://HOST:PORT/DB?"),
    ("unix:///run/r", "'unix:///run/r'", "did you mean redis+unix:///PATH?"),
    (
        "redis-sentinel://h/m",
        "'redis-sentinel://h/m'",
        "did you mean redis+sentinel://HOST:PORT,HOST:PORT/SERVICE?",
    ),
    ("local:run/x", "'local:run/x'", "the socket's path must begin with /, such as local:/run/wsproxy/state"),
    (
        f"local:/{'a' * 100}",
        f"'local:/{'a' * 100}'",
        "a socket's path has at most 100 bytes, and names no directory",
    ),
    (
        "redis+unix://run/x",
        "'redis+unix://run/x'",
        "it must be redis+unix:///PATH, with three slashes and without TLS",
    ),
    (
        "redis+unix:///run/x?password=hunter2",
        "'redis+unix:///run/x?...'",
        "only ?db=NUMBER may follow the path",
    ),
    ("redis://", "'redis://'", "it must have a host with a port, such as redis.example:6379"),
    ("redis://h:70000", "'redis://h:70000'", "its port must be 1 to 65535"),
    ("redis://h:0", "'redis://h:0'", "its port must be 1 to 65535"),
    ("redis://h/x", "'redis://h/x'", _DB),
    ("redis://h/10000", "'redis://h/10000'", _DB),
    ("redis+unix:///run/x?db=-1", "'redis+unix:///run/x?...'", _DB),
    (
        "redis://h?password=hunter2",
        "'redis://h?...'",
        "leave out what begins with ?; settings of their own have the rest",
    ),
    ("redis://h#x", "'redis://h#...'", "leave out what begins with #"),
    ("redis://:hunter2/x@h", "'...@h'", _ENCODE),
    ("redis://:hunter2#x@h", "'...@h'", _ENCODE),
    ("redis://:hunter2?x@h", "'...@h'", _ENCODE),
    ("redis://:a@hunter2@h", "'...@h'", _ENCODE),
    ("redis://a,b", "'redis://a,b'", "it names several hosts; use redis+sentinel:// or redis+cluster://"),
    ("redis+sentinel://a", "'redis+sentinel://a'", "name the service after the Sentinels, such as /mymaster"),
    (
        "redis+cluster://a/1",
        "'redis+cluster://a/1'",
        "a Cluster has no databases; leave out what follows the ports",
    ),
)

WRONG_VALUE = (
    Wrong({"port": "70000"}, "{} is 70000; it must be 0 to 65535", {"port": 70000}),
    Wrong({"max_sessions": "-1"}, "{} is -1; it must be 1 or more, or 0 for no limit", {"max_sessions": -1}),
    Wrong(
        {"dial_timeout": "-0.5"},
        "{} is -0.5; it must be more than 0 seconds and less than a day",
        {"dial_timeout": -0.5},
    ),
    Wrong(
        {"drain_timeout": "86400.5"},
        "{} is 86400.5; it must be 0 seconds or more, and less than a day",
        {"drain_timeout": 86400.5},
    ),
    Wrong(
        {"idle_timeout": "inf"},
        "{} is inf; it must be a number of seconds, or 0 for no limit",
        {"idle_timeout": math.inf},
    ),
    Wrong({"grace": "nan"}, "{} is nan; it must be 0 seconds or more, or inf", {"grace": math.nan}),
    Wrong({"leeway": "300.5"}, "{} is 300.5; it must be 0 to 300 seconds", {"leeway": 300.5}),
    Wrong({"workers": "65"}, "{} is 65; it must be 1 to 64", {"workers": 65}),
    Wrong({"max_pending": "7"}, "{} is 7; it must be 8 or more", {"max_pending": 7}),
    Wrong({"max_head_size": "1000"}, "{} is 1000; it must be 16384 to 131072", {"max_head_size": 1000}),
    Wrong(
        {"max_frame_size": "1000"}, "{} is 1000; KubeVirt needs 65536 bytes or more", {"max_frame_size": 1000}
    ),
    Wrong({"reject": "never"}, "{} is 'never'; choose from auto, http, close"),
    Wrong({"log_level": "loud"}, "{} is 'loud'; choose from DEBUG, INFO, WARNING, ERROR, CRITICAL"),
    Wrong({"forwarded_headers": "via"}, "{} is 'via'; choose from auto, x-forwarded, forwarded"),
    Wrong(
        {"namespaces": "lab-1,Lab_1"},
        "{} has 'Lab_1'; use Kubernetes names (DNS-1123 labels), such as lab-1",
        {"namespaces": ["lab-1", "Lab_1"]},
    ),
    Wrong({"subresources": "VNC"}, "{} has 'VNC'; use names such as vnc and console"),
    Wrong(
        {"credentials": "body"},
        "credentials is ['body']; choose from path, header, subprotocol, query, cookie",
    ),
    Wrong(
        {"allow_origin": "https://a/"},
        "allow_origin has 'https://a/'; write SCHEME://HOST or SCHEME://HOST:PORT",
    ),
    Wrong(
        {"trusted_proxies": "10.0.0.1/8"},
        "trusted_proxies: 10.0.0.1/8 has host bits set; write addresses and networks, as 10.0.0.0/8, or unix",
    ),
    Wrong(
        {"trusted_proxies": "fe80::1%eth0"},
        "trusted_proxies: 'fe80::1%eth0' has a zone or a percent sign; write addresses and networks, "
        "as 10.0.0.0/8, or unix",
    ),
    Wrong({"claim_vmis": "vmis"}, "claim_vmis is 'vmis'; it must be a JSON pointer such as /sub or /a/b"),
    Wrong(
        {"api_path": "/vnc"},
        "api_path is '/vnc'; it must hold {{namespace}} and {{vmi_name}} and no other braces",
    ),
    Wrong(
        {"jwks": "https://user:hunter2@a.example/"},
        "jwks has a user name in it; leave that out, the proxy fetches keys without a login",
    ),
    *(Wrong({"state": text}, f"{{}} is {shown}; {remedy}") for text, shown, remedy in _STATES),
    Wrong({"state_unavailable": "admit"}, "{} is 'admit'; choose from refuse, local"),
    Wrong({"state_lease": "0.1"}, "{} is 0.1; it must be 0.3 to 600 seconds", {"state_lease": 0.1}),
    Wrong(
        {"token_lifetime": "inf"},
        "{} is inf; it must be a number of seconds above 0",
        {"token_lifetime": math.inf},
    ),
    Wrong(
        {"state_prefix": "{lab}"},
        "{} is '{{lab}}'; use 1 to 100 letters, digits, or any of -_/:.",
    ),
    Wrong({"replica_name": "a" * 101}, f"{{}} is '{'a' * 100}...'; use at most 100 printable characters"),
    Wrong({"admin": "9100"}, "admin is '9100'; it must be HOST:PORT, [IPV6]:PORT or unix:PATH"),
    Wrong(
        {"listen": "/run/x"},
        "listen is '/run/x'; it must be unix:PATH or fd:NUMBER; a TCP address is HOST and PORT",
    ),
)

CONTRADICTION = (
    Wrong(
        {"state_file": "/f", "state": "local:/run/x"},
        "state_file is set but state is local:/run/x; set state to memory, or leave state_file out",
    ),
    Wrong(
        {"state_group": "lab", "state": "redis://:hunter2@h"},
        "state_group is set but state is redis://h:6379; set state to local:PATH, or leave state_group out",
    ),
    Wrong(
        {"state_ca_file": "/f", "state": "redis://h"},
        "state_ca_file is set but state is redis://h:6379; set state to a URL such as "
        "rediss://HOST:6379/0, or leave state_ca_file out",
    ),
    Wrong(
        {"state_prefix": "lab"},
        "state_prefix is set but state is memory; set state to a URL such as redis://HOST:6379/0, or leave "
        "state_prefix out",
    ),
    Wrong(
        {"state_password_file": "/f", "state": "redis://:hunter2@h"},
        "state has a password, and state_password_file is set; leave one out",
    ),
    Wrong({"tls_key": "/k"}, "tls_key is set but tls_cert is not; set tls_cert, too, or leave tls_key out"),
    Wrong({"novnc": "/n"}, "novnc is set but console_page is not; set that, too, or leave novnc out"),
    Wrong(
        {"frame_ancestors": "self"},
        "frame_ancestors is set but neither console_page nor web is; set one of them, or leave it out",
    ),
    Wrong(
        {"admin_token_file": "/t"},
        "admin_token_file is set but admin is not; set admin to the listener's address",
    ),
    Wrong(
        {"credentials": "header,cookie"},
        "credentials has cookie, but allow_origin is not set: browsers send cookies for every page; name the "
        "pages that may use them, such as https://console.example",
        {"credentials": ["header", "cookie"]},
    ),
    Wrong(
        {"state_file": "/s", "workers": "2"},
        "state_file is set, but workers is 2; set state to local:PATH or to a Redis, which keep revocations "
        "themselves, and leave state_file out",
        {"state_file": "/s", "workers": 2},
    ),
    Wrong(
        {"listen": "fd:3", "reuse_port": "true"},
        "reuse_port is on, but listen is an inherited descriptor, which is bound; leave it out",
        {"listen": "fd:3", "reuse_port": True},
    ),
)

UNREADABLE = (
    Wrong(
        {"secret_key_files": "/nope"},
        f"SECRET_KEY_FILE names /nope, which cannot be read: No such file or directory; {_FILE}",
    ),
    Wrong(
        {"jwks": "/nope"},
        f"WSPROXY_JWKS names /nope, which cannot be read: No such file or directory; {_FILE}",
    ),
    Wrong(
        {"tls_cert": "/nope"}, f"TLS for clients: cannot read /nope: No such file or directory; {_TLS_FILES}"
    ),
    Wrong(
        {"secret_key_files": "/dev/null"},
        "SECRET_KEY_FILE: the key file /dev/null is empty; give the secret that the tokens are signed with",
    ),
    Wrong(
        {"jwks": "/dev/null"},
        "WSPROXY_JWKS: the JWK Set /dev/null: it is not JSON; "
        "name a file with a JWK Set (RFC 7517 section 5)",
    ),
    Wrong(
        {"web": "/nope"},
        "web is '/nope'; cannot read /nope: No such file or directory; name one that the proxy can read",
    ),
    Wrong(
        {"audit_log": "/nope/x"},
        "audit_log is '/nope/x': No such file or directory; name a file that the proxy can create or write",
    ),
)

TABLE = {
    "missing": MISSING,
    "wrong type": WRONG_TYPE,
    "wrong value": WRONG_VALUE,
    "contradiction": CONTRADICTION,
    "unreadable file": UNREADABLE,
}

NEAR = (
    ("max_sesions", "max_sessions"),
    ("name_spaces", "namespaces"),
    ("ping_intervall", "ping_interval"),
    ("trusted_proxy", "trusted_proxies"),
    ("allow_origins", "allow_origin"),
)


def toml(value: object) -> str:
    """Return a value as TOML has it."""
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value)


class WrongSettingsTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name, "wsproxy.toml")

    def faults(self, make: Callable[[], Config]) -> tuple[str, ...]:
        """Return what is wrong with settings that a proxy is made of."""
        with self.assertRaises(ConfigError) as caught:
            WebsocketProxy.from_config(make())
        return caught.exception.faults

    def ways(self, wrong: Wrong) -> Iterator[tuple[str, tuple[str, ...], str]]:
        """Yield, for each way to say it, its name, the faults, and the sentence that is expected."""
        first = BY_NAME[next(iter(wrong.text))]
        values = dict(wrong.value or wrong.text)
        of_value = wrong.fault_of_value or wrong.fault
        left = {name: value for name, value in _POD.items() if name.lower() not in wrong.without}
        texts: dict[str, str | None] = {BY_NAME[name].env: text for name, text in wrong.text.items()}
        environ = left | {BY_NAME[name].env: text for name, text in wrong.text.items()}
        yield "environment", self.faults(lambda: config_from_env(environ)), wrong.fault.format(first.env)
        others = {name: value for name, value in left.items() if name not in texts}
        yield "flag", self.faults(lambda: config_from_env(others, texts)), wrong.fault.format(first.flag)
        self.path.write_text("\n".join(f"{name} = {toml(value)}" for name, value in values.items()), "utf-8")
        others = {name: value for name, value in others.items() if name.lower() not in values}
        others["WSPROXY_CONFIG"] = str(self.path)
        expected = of_value.format(f"{first.name} in {self.path}")
        yield "file", self.faults(lambda: config_from_env(others)), expected
        library = {name: value for name, value in _LIBRARY.items() if name not in wrong.without}
        make = config_from_mapping if wrong.without else lambda given: Config(**given)
        yield "Python", self.faults(lambda: make(library | values)), of_value.format(first.name)

    def test_table(self) -> None:
        """Each is one sentence, which names the setting as the person does, and says what to do."""
        for kind, rows in TABLE.items():
            for wrong in rows:
                for way, faults, expected in self.ways(wrong):
                    with self.subTest(kind=kind, wrong=wrong.text, way=way):
                        self.assertEqual(faults, (expected,))
                        self.assertNotRegex(expected, r"\. |\n|\Z\.")
                        self.assertNotIn("hunter2", expected)

    def test_near_names(self) -> None:
        """A misspelt name is told which one is meant."""
        for name, meant in NEAR:
            variable, flag = f"WSPROXY_{name.upper()}", f"--{name.replace('_', '-')}"
            setting = BY_NAME[meant]
            with self.subTest(name):
                faults = self.faults(lambda variable=variable: config_from_env(_POD | {variable: "1"}))  # type: ignore[misc]
                self.assertEqual(faults, (f"{variable} is not a setting; did you mean {setting.env}?",))
                self.path.write_text(f"{name} = 1", encoding="utf-8")
                faults = self.faults(lambda: config_from_env(_POD | {"WSPROXY_CONFIG": str(self.path)}))
                expected = f"{name!r} in {self.path} is not a setting; did you mean {meant}?"
                self.assertEqual(faults, (expected,))
                faults = self.faults(lambda name=name: config_from_mapping(_LIBRARY | {name: 1}))  # type: ignore[misc]
                self.assertEqual(faults, (f"{name!r} is not a setting; did you mean {meant}?",))
                options: dict[str, Any] = _LIBRARY | {name: 1}
                with self.assertRaisesRegex(TypeError, f"argument '{name}'; did you mean {meant}[?]$"):
                    Config(**options)
                expected = f"error: {flag} is not a flag; did you mean {setting.flag}?\n"
                self.assertIn(expected, self.usage(flag))

    def usage(self, flag: str) -> str:
        """Return what the program says of a flag."""
        with (
            contextlib.redirect_stderr(io.StringIO()) as err,
            mock.patch.dict("os.environ", _POD, clear=True),
            self.assertRaises(SystemExit),
        ):
            main(["serve", flag, "1"])
        return err.getvalue()

    def test_files_of_settings(self) -> None:
        """A file with settings that cannot be read, or is not TOML, is one sentence, too."""
        self.path.write_text(f"secret_key = {SECRET}", encoding="utf-8")
        for path, fault in (
            ("/nope", f"cannot be read: No such file or directory; {_FILE}"),
            (str(self.path.parent), "cannot be read: Is a directory; name the file in that directory"),
            (str(self.path), "is not TOML at line 1, column 14; write lines such as port = 5001"),
        ):
            for name, given in (
                ("WSPROXY_CONFIG", lambda path=path: config_from_env(_POD | {"WSPROXY_CONFIG": path})),
                ("--config", lambda path=path: config_from_env(_POD, {"WSPROXY_CONFIG": path})),
            ):
                with self.subTest(path=path, name=name):
                    self.assertEqual(self.faults(given), (f"{name} names {path}, which {fault}",))

    def test_number(self) -> None:
        """The tables have as many faults as were promised."""
        self.assertGreaterEqual(sum(map(len, TABLE.values())) + len(NEAR), 46)
