"""The program: its commands, its output and its exit statuses."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import unittest
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from unittest import mock

from tests.support.issuer import Issuer, SigningKey, http_answer
from tests.support.processes import python
from tests.support.proxy_process import ProxyProcess
from wsproxy.cli import main
from wsproxy.cli.check import check, raise_descriptor_limit
from wsproxy.config import config_from_env
from wsproxy.exceptions import UpstreamTimeout
from wsproxy.testing.case import SECRET, LeakTestCase, ProxyTestCase
from wsproxy.testing.kubevirt.certificates import CertificateAuthority
from wsproxy.testing.kubevirt.http import Behaviour
from wsproxy.tokens.keys import Keyring, load_keys
from wsproxy.tokens.verifier import TokenVerifier
from wsproxy.version import __version__

_TIMEOUT = 60.0
_DEV = {"SECRET_KEY": SECRET, "LOCAL_DEV_MODE": "true", "HOST": "127.0.0.1", "PORT": "0"}
_READY = re.compile(rf"wsproxy {re.escape(__version__)} listening on (\S+):(\d+)\n")


def call(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Run the program in this process; return its exit status, output and errors."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, environment, clear=True),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch("wsproxy.cli.program.settle"),  # this process uses every CPU afterwards, too
    ):
        try:
            status = main(arguments)
        except SystemExit as exc:
            status = exc.code if isinstance(exc.code, int) else 1
    return status, out.getvalue(), err.getvalue()


def has_ipv6_loopback() -> bool:
    """Whether this machine has IPv6."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def program(*arguments: str, env: Mapping[str, str]) -> AbstractContextManager[subprocess.Popen[str]]:
    """Run ``python -m wsproxy`` with just that environment."""
    base = {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": os.pathsep.join(sys.path)}
    return python("-m", "wsproxy", *arguments, env={**base, **env}, stderr=subprocess.PIPE, seconds=_TIMEOUT)


class Serve(LeakTestCase):
    """``wsproxy`` and ``wsproxy serve``."""

    def served(self, *arguments: str, **environment: str) -> tuple[str, str, str]:
        """Serve until SIGTERM; return the address of the ready line, and all further output."""
        with program(*arguments, env={**_DEV, **environment}) as process:
            assert process.stdout
            ready = _READY.fullmatch(process.stdout.readline())
            assert ready is not None
            host, port = ready.groups()
            with socket.create_connection((host.strip("[]"), int(port)), timeout=_TIMEOUT) as client:
                client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                self.assertTrue(client.recv(4096).startswith(b"HTTP/1.1 200 "))
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=_TIMEOUT)
        self.assertEqual(process.returncode, 0, err)
        return host, out, err

    def test_ready_line(self) -> None:
        """Serving prints one line with the bound address, logs to stderr, and ends with 0 on SIGTERM."""
        host, out, err = self.served("serve")
        self.assertEqual((host, out), ("127.0.0.1", ""))
        self.assertIn("SIGTERM: stopping", err)
        self.assertNotIn(SECRET, err)

    def test_tls(self) -> None:
        """With a certificate the line says so; flags name the files; a fault of the files stops the start."""
        with tempfile.TemporaryDirectory() as directory:
            authority = CertificateAuthority(directory)
            certfile, keyfile = authority.issue()
            flags = ("--tls-cert", certfile, "--tls-key", keyfile, "--tls-client-ca", authority.ca_file)
            with program("serve", *flags, env=_DEV) as process:
                assert process.stdout
                self.assertRegex(
                    process.stdout.readline(), r" listening on 127\.0\.0\.1:\d+ \(wss, https\)\n"
                )
                process.send_signal(signal.SIGTERM)
                process.communicate(timeout=_TIMEOUT)
            self.assertEqual(process.returncode, 0)
            status, out, err = call("serve", "--tls-cert", certfile, **_DEV)
        self.assertEqual((status, out), (2, ""))
        self.assertIn(f"\n  - TLS for clients: {certfile} holds no private key in PEM form; ", err)

    def test_no_command(self) -> None:
        """``python -m wsproxy`` is ``wsproxy serve``, also with flags."""
        self.served()
        self.served("--loglevel", "error")

    def test_flags_win(self) -> None:
        """A flag overrides the environment."""
        _, _, err = self.served("serve", "--host", "127.0.0.1", "--loglevel", "ERROR", HOST="192.0.2.1")
        self.assertEqual(err, "")

    def test_address_is_taken(self) -> None:
        """A port that is taken is one line on stderr that names it, and exit status 1."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            with program(env={**_DEV, "PORT": port}) as process:
                out, err = process.communicate(timeout=_TIMEOUT)
        self.assertEqual((process.returncode, out), (1, ""))
        self.assertRegex(err, rf"\Awsproxy: cannot listen on 127\.0\.0\.1:{port}: [^:]*in use\n\Z")

    def test_no_host(self) -> None:
        """Without HOST it listens at every address, IPv4 and IPv6, where there are both."""
        host, _, _ = self.served(HOST="")
        self.assertEqual(host, "[::]" if has_ipv6_loopback() else "0.0.0.0")

    def test_no_such_port(self) -> None:
        """A port that does not exist is a fault, whatever its source."""
        for name, value, fault in (
            ("PORT", "70000", "PORT is 70000; "),
            ("WSPROXY_ADMIN", "127.0.0.1:70000", "admin is '127.0.0.1:70000'; "),
        ):
            status, _, err = call("serve", **(_DEV | {name: value}))
            self.assertEqual(status, 2)
            self.assertIn(f"\n  - {fault}", err)
        status, _, err = call("demo", "--port", "70000")
        self.assertEqual(status, 2)
        self.assertIn("\n  - port is 70000; it must be 0 to 65535\n", err)

    def test_key_files(self) -> None:
        """A key file that cannot be read is a fault that names the setting, and the remedy."""
        with tempfile.TemporaryDirectory() as directory:
            for name, path, reason, remedy in (
                ("SECRET_KEY_FILE", "/nope", "No such file or directory", "mount or make it there"),
                ("SECRET_KEY_FILE", directory, "Is a directory", "name the file in that directory"),
                ("WSPROXY_JWKS", "/nope", "No such file or directory", "mount or make it there"),
            ):
                with self.subTest(name=name, path=path):
                    status, _, err = call("serve", **(_DEV | {"SECRET_KEY": "", name: path}))
                    self.assertEqual(status, 2)
                    self.assertIn(f"\n  - {name} names {path}, which cannot be read: {reason}; {remedy}", err)

    def test_faults(self) -> None:
        """Faulty settings are listed on stderr, all at once, with exit status 2."""
        environment = {
            "PORT": "many",
            "LOGLEVEL": "loud",
            "WSPROXY_REJECT": "maybe",
            "WSPROXY_DIAL_TIMEOUT": "-1",
            "WSPROXY_PINGS": "1",
        }
        status, out, err = call("serve", **environment)
        self.assertEqual((status, out), (2, ""))
        for word in (
            "PORT",
            "LOGLEVEL",
            "WSPROXY_REJECT",
            "WSPROXY_DIAL_TIMEOUT",
            "WSPROXY_PINGS",
            "SECRET_KEY",
        ):
            self.assertEqual(err.count(f"\n  - {word} "), 1, err)
        self.assertEqual(err.count("KUBERNETES_SERVICE_HOST"), 1, err)

    def test_unknown_variable(self) -> None:
        """A misspelt WSPROXY_ variable is a fault; those that Kubernetes injects for a Service are not."""
        status, _, err = call("serve", **_DEV, WSPROXY_CAFILE="/x")
        self.assertEqual(status, 2)
        self.assertIn("WSPROXY_CAFILE is not a setting", err)
        injected = {
            "WSPROXY_PORT": "tcp://10.0.0.1:5001",
            "WSPROXY_PORT_5001_TCP_ADDR": "10.0.0.1",
            "WSPROXY_SERVICE_HOST": "10.0.0.1",
        }
        self.assertEqual(call("check", **(_DEV | {"LOCAL_DEV_MODE": "x"}), **injected)[2].count("\n  - "), 1)

    def test_unknown_flag(self) -> None:
        """An unknown flag or command is a usage error."""
        for arguments in (["serve", "--nonsense"], ["--nonsense"], ["nonsense"], ["token"]):
            with self.subTest(arguments=arguments):
                status, _, err = call(*arguments, **_DEV)
                self.assertEqual(status, 2)
                self.assertIn("usage: wsproxy", err)

    def test_files(self) -> None:
        """The page and a web client are served, by several workers too; a flag may stand alone for true."""
        with tempfile.TemporaryDirectory() as directory:
            Path(directory, "vnc.html").write_text("noVNC", encoding="ascii")
            flags = ("--console-page", "--web", directory, "--workers", "2", "--reuse-port", "false")
            with program("serve", *flags, env=_DEV) as process:
                assert process.stdout
                ready = _READY.fullmatch(process.stdout.readline())
                assert ready is not None
                for path, body in (("vnc.html", b"noVNC"), ("console/", b"<!DOCTYPE html>")):
                    with urllib.request.urlopen(
                        f"http://{ready[1]}:{ready[2]}/{path}", None, _TIMEOUT
                    ) as page:
                        self.assertTrue(page.read().startswith(body))
                process.send_signal(signal.SIGTERM)
                process.communicate(timeout=_TIMEOUT)
            self.assertEqual(process.returncode, 0)
            for workers in ("1", "2"):
                status, _, err = call("serve", "--web", f"{directory}/x", "--workers", workers, **_DEV)
                self.assertEqual(status, 2)
                self.assertIn(f"\n  - web is '{directory}/x'; cannot read {directory}/x: No such file", err)

    def test_version_and_help(self) -> None:
        """``--version`` and ``--help`` print to stdout and end with 0."""
        self.assertEqual(call("--version"), (0, f"wsproxy {__version__}\n", ""))
        status, out, _ = call("--help")
        self.assertEqual(status, 0)
        for command in ("serve", "token", "check", "demo"):
            self.assertIn(command, out)
        status, out, _ = call("serve", "--help")
        self.assertEqual(status, 0)
        self.assertIn("WSPROXY_CA_FILE", out)

    def test_version_of_the_module(self) -> None:
        """``python -m wsproxy --version`` needs no settings."""
        with program("--version", env={}) as process:
            self.assertEqual(process.communicate(timeout=_TIMEOUT), (f"wsproxy {__version__}\n", ""))
        self.assertEqual(process.returncode, 0)


class Token(LeakTestCase):
    """``wsproxy token``."""

    def test_token_verifies(self) -> None:
        """The printed token grants just what was asked for."""
        arguments = ["token", "--vmi", "ubuntu", "--vmi", "win.11", "--namespace", "lab-1", "--user", "5"]
        status, out, err = call(*arguments, "--expires-in", "60", SECRET_KEY=SECRET)
        self.assertEqual((status, err), (0, ""))
        grant = TokenVerifier(Keyring(load_keys(SECRET))).verify(out.strip())
        self.assertEqual((grant.user, grant.namespace, grant.vmis), (5, "lab-1", ("ubuntu", "win.11")))
        self.assertAlmostEqual(grant.seconds_left(), 60, delta=10)

    def test_defaults(self) -> None:
        """A user may be a name; a token is good for ten minutes."""
        status, out, _ = call("token", "--vmi", "a", "--namespace", "b", "--user", "eve", SECRET_KEY=SECRET)
        self.assertEqual(status, 0)
        grant = TokenVerifier(Keyring(load_keys(SECRET))).verify(out.strip())
        self.assertEqual(grant.user, "eve")
        self.assertAlmostEqual(grant.seconds_left(), 600, delta=10)

    def test_secret_by_flag(self) -> None:
        """A flag for the secret overrides the variable."""
        arguments = ["token", "--vmi", "a", "--namespace", "b", "--secret-key", SECRET]
        status, out, _ = call(*arguments, SECRET_KEY="another one that is long enough to use")
        self.assertEqual(status, 0)
        TokenVerifier(Keyring(load_keys(SECRET))).verify(out.strip())

    def test_secret_in_a_file(self) -> None:
        """Without a secret, the first key file is taken; a public key cannot sign."""
        arguments = ["token", "--vmi", "a", "--namespace", "b"]
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "key")
            with open(path, "w") as file:
                file.write(f"{SECRET}\n")
            for more, environment in (
                ([], {"SECRET_KEY_FILE": f"{path},/other"}),
                (["--secret-key-file", path], {}),
                (["--secret-key-file", path], {"SECRET_KEY_FILE": "/other"}),
            ):
                status, out, _ = call(*arguments, *more, **environment)
                self.assertEqual(status, 0)
                TokenVerifier(Keyring(load_keys(SECRET))).verify(out.strip())
            with open(path, "wb") as pem:
                pem.write(SigningKey("ES256").pem)
            status, _, err = call(*arguments, SECRET_KEY_FILE=path)
            self.assertEqual(status, 2)
            self.assertIn("cannot sign", err)
            status, _, err = call(*arguments, SECRET_KEY_FILE="/nonexistent/key")
            self.assertEqual(status, 2)
            self.assertIn("\n  - SECRET_KEY_FILE names /nonexistent/key, which cannot be read: ", err)

    def test_faults(self) -> None:
        """Without a secret, or with names that Kubernetes does not know, there is no token."""
        good = {"SECRET_KEY": SECRET}
        for arguments, environment, word in (
            (["--vmi", "a", "--namespace", "b"], {}, "SECRET_KEY is empty"),
            (["--vmi", "A", "--namespace", "b"], good, "--vmi 'A'"),
            (["--vmi", "a", "--namespace", "b.c"], good, "--namespace 'b.c'"),
            (["--vmi", "a/b", "--namespace", "B"], good, "--vmi 'a/b'"),
        ):
            with self.subTest(arguments=arguments):
                status, out, err = call("token", *arguments, **environment)
                self.assertEqual((status, out), (2, ""))
                self.assertIn(word, err)


class ServiceAccount(ProxyTestCase):
    """The files that Kubernetes gives a pod, and that may be missing."""

    def test_files_that_are_missing(self) -> None:
        """The program starts, is not ready, and says once what is missing, however many processes serve."""
        for workers in ("1", "2"):
            for name in ("WSPROXY_TOKEN_FILE", "WSPROXY_CA_FILE"):
                settings = {"WSPROXY_WORKERS": workers, name: "/nope"}
                with self.subTest(settings), ProxyProcess(self.api, **settings) as proxy:
                    for _ in range(8):
                        with self.assertRaises(urllib.error.HTTPError) as caught:
                            urllib.request.urlopen(
                                f"{proxy.url.replace('ws', 'http')}/readyz", None, _TIMEOUT
                            )
                        caught.exception.close()
                        self.assertEqual(caught.exception.code, 503)
                    self.assertEqual(proxy.stop(), 0)
                    errors = re.findall(rb".*ERROR.*", proxy.output)
                    self.assertEqual(len(errors), 1, proxy.output.decode())
                    self.assertRegex(errors[0], rb"No such file or directory: '/nope'; .*" + name.encode())
        self.assertEqual(self.api.connections, 0)


class Check(ProxyTestCase):
    """``wsproxy check`` against the simulated API."""

    def settings(self, **different: str) -> dict[str, str]:
        return {
            "SECRET_KEY": SECRET,
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self.api.port),
            "WSPROXY_CA_FILE": self.api.ca_file,
            "WSPROXY_TOKEN_FILE": self.api.token_file,
            "WSPROXY_DIAL_TIMEOUT": "2",
            **different,
        }

    def check(self, **different: str) -> tuple[int, list[str]]:
        with mock.patch("wsproxy.cli.check.raise_descriptor_limit", return_value=(4096, 4096)):
            status, out, err = call("check", **self.settings(**different))
        self.assertEqual(err, "")
        self.assertNotIn(self.api.token, out)
        self.assertNotIn(SECRET, out)
        return status, out.splitlines()

    def assert_fault(self, word: str, remedy: str, **different: str) -> None:
        status, lines = self.check(**different)
        self.assertEqual(status, 1, lines)
        faults = [line for line in lines if line.startswith("FAULT ")]
        self.assertEqual(len(faults), 1, lines)
        self.assertIn(word, faults[0])
        self.assertIn(remedy, faults[0])

    def test_all_is_well(self) -> None:
        """There is one line for each check, and exit status 0."""
        status, lines = self.check()
        self.assertEqual(status, 0, lines)
        self.assertTrue(all(line.startswith("ok    ") for line in lines), lines)
        first = ("settings", "descriptors", "certificate: none", "keys", "state: memory")
        words = (*first, "CA", "service-account token", "API", "permission: get")
        for word, line in zip(words, lines, strict=True):
            self.assertTrue(line.startswith(f"ok    {word}"), line)
        self.assertEqual(self.api.requests[0].values("authorization"), [f"Bearer {self.api.token}"])

    def test_files(self) -> None:
        """If files are served, they are checked. A page without noVNC is a fault, too."""
        with tempfile.TemporaryDirectory() as directory:
            for name in ("vnc.html", "core/rfb.js"):
                Path(directory, name).parent.mkdir(exist_ok=True)
                Path(directory, name).write_text(name, encoding="ascii")
            status, lines = self.check(WSPROXY_WEB=directory)
            self.assertEqual(status, 0, lines)
            self.assertIn("ok    files for browsers: 2 paths", lines)
            page = {"WSPROXY_CONSOLE_PAGE": "true"}
            self.assertEqual(self.check(**page, WSPROXY_NOVNC=directory)[0], 0)
            self.assert_fault("files for browsers", "cannot read ", WSPROXY_WEB=f"{directory}/nothing")
            with mock.patch("wsproxy.web.static_files._INSTALLED_NOVNC", Path(directory, "nothing")):
                self.assert_fault("no noVNC", "--novnc DIR", **page)

    def test_state(self) -> None:
        """A store that cannot be used is a fault; what the operator should know is none."""
        with tempfile.TemporaryDirectory() as directory:
            state = f"local:{directory}/store"
            status, lines = self.check(WSPROXY_STATE=state)
            self.assertEqual(status, 0, lines)
            self.assertIn(f"ok    state: {state}: it does not run; the first process starts it", lines)
            os.chmod(directory, 0o777)
            status, lines = self.check(WSPROXY_STATE=state)
            self.assertEqual(status, 0, lines)
            (warning,) = (line for line in lines if line.startswith("warn  "))
            self.assertIn(f"state: {state}: every user may replace", warning)
            self.assert_fault("state: local:", "make that directory", WSPROXY_STATE=f"{state}/none/store")

    def test_files_of_the_operator(self) -> None:
        """A file that stops the start is a fault here, too: the audit log, the operator's token."""
        with tempfile.TemporaryDirectory() as directory:
            log, token = f"{directory}/audit.log", f"{directory}/token"
            files = {"WSPROXY_ADMIN": f"unix:{directory}/admin", "WSPROXY_ADMIN_TOKEN_FILE": token}
            status, lines = self.check(**files, WSPROXY_AUDIT_LOG=log)
            self.assertEqual(status, 0, lines)
            self.assertLessEqual({f"ok    audit log: {log}", f"ok    operator's token: {token}"}, set(lines))
            self.assertEqual(os.listdir(directory), [], "who checks would own what the proxy has to write")
            self.assert_fault("audit_log", "name a file", WSPROXY_AUDIT_LOG=f"{directory}/none/log")
            Path(token).write_text("short", encoding="ascii")
            self.assert_fault("operator's token", "admin_token_file", **files)
            for wrong in (f"{directory}/none/token", f"{token}/token", directory):
                self.assert_fault(
                    "operator's token", "admin_token_file", **{**files, "WSPROXY_ADMIN_TOKEN_FILE": wrong}
                )

    def test_revocations(self) -> None:
        """The file of revocations is read, and left as it is."""
        with tempfile.TemporaryDirectory() as directory:
            path = f"{directory}/revocations"
            self.assertIn(f"ok    revocations: {path}, 0 rules", self.check(WSPROXY_STATE_FILE=path)[1])
            self.assertEqual(os.listdir(directory), [])
            Path(path).write_text("", encoding="ascii")
            self.assert_fault("revocations: state_file is", "it is no JSON", WSPROXY_STATE_FILE=path)

    def test_faulty_settings(self) -> None:
        """Faulty settings are reported as by ``serve``."""
        status, _, err = call("check", **self.settings(PORT="x"))
        self.assertEqual(status, 2)
        self.assertIn("PORT is 'x'", err)

    def test_certificate(self) -> None:
        """The certificate for clients is read, compared with its key, and looked at for its time."""
        with tempfile.TemporaryDirectory() as directory:
            authority = CertificateAuthority(directory, days=30)
            certfile, keyfile = authority.issue()
            files = {"WSPROXY_TLS_CERT": certfile, "WSPROXY_TLS_KEY": keyfile}
            self.assertIn(f"ok    certificate: {certfile}, 29 days left", self.check(**files)[1])
            _, lines = self.check(**files, WSPROXY_TLS_CLIENT_CA=authority.ca_file)
            self.assertIn(
                f"ok    certificate: {certfile}, 29 days left, "
                f"clients need a certificate issued by {authority.ca_file}",
                lines,
            )
            for word, different in (
                ("does not belong to the first certificate", {"WSPROXY_TLS_KEY": authority.issue()[1]}),
                ("No such file", {"WSPROXY_TLS_CERT": "/nowhere/tls.crt"}),
                ("holds no certificate", {"WSPROXY_TLS_CLIENT_CA": keyfile}),
                (
                    "expired at",
                    dict(zip(files, authority.issue(seconds=-1), strict=True)),
                ),
            ):
                self.assert_fault(word, "set WSPROXY_TLS_CERT and WSPROXY_TLS_KEY", **(files | different))

    def test_jwks(self) -> None:
        """Keys at a URL are fetched and counted; if that fails, the line says why and what to do."""
        with Issuer() as issuer:
            issuer.publish(SigningKey("ES256").jwk, SigningKey("EdDSA").jwk)
            status, lines = self.check(WSPROXY_JWKS=issuer.url)
            self.assertEqual(status, 0, lines)
            self.assertIn(f"ok    keys: {issuer.url.partition('?')[0]}: 3 to verify tokens with", lines)
            status, lines = self.check(WSPROXY_JWKS=issuer.url, SECRET_KEY="")
            self.assertIn(f"ok    keys: {issuer.url.partition('?')[0]}: 2 to verify tokens with", lines)
            issuer.publish()
            self.assert_fault("keys", "ask the issuer", WSPROXY_JWKS=issuer.url, SECRET_KEY="")
            issuer.answer = http_answer(b"<html>")
            self.assert_fault("not JSON", "check the URL", WSPROXY_JWKS=issuer.url)
            issuer.answer = http_answer(b"", "404 Not Found")
            self.assert_fault("404", "check the URL", WSPROXY_JWKS=issuer.url)
            gone = issuer.url
        self.assert_fault("refused", "check the URL", WSPROXY_JWKS=gone)

    def test_where_it_listens(self) -> None:
        """The first line says where it would listen, be that an address or a path."""
        self.assertTrue(self.check()[1][0].endswith(", listening on [::]:5001"))
        self.assertTrue(self.check(WSPROXY_LISTEN="unix:/a")[1][0].endswith(", listening on unix:/a"))

    def test_key_files(self) -> None:
        """A key file that cannot be used is a fault."""
        self.assert_fault("/nonexistent/key", "SECRET_KEY_FILE", SECRET_KEY_FILE="/nonexistent/key")

    def test_no_ca(self) -> None:
        """A missing CA file is a fault, and so is one that holds no certificate."""
        self.assert_fault("CA: /nowhere/ca.crt", "WSPROXY_CA_FILE", WSPROXY_CA_FILE="/nowhere/ca.crt")
        self.assert_fault("CA: ", "WSPROXY_CA_FILE", WSPROXY_CA_FILE=self.api.token_file)
        self.assertEqual(self.api.connections, 0)

    def test_no_token(self) -> None:
        """A missing token file is a fault, and so is an empty one."""
        self.assert_fault("token: /nowhere/token", "WSPROXY_TOKEN_FILE", WSPROXY_TOKEN_FILE="/nowhere/token")
        self.assert_fault("no bearer token", "WSPROXY_TOKEN_FILE", WSPROXY_TOKEN_FILE=os.devnull)

    def test_wrong_ca(self) -> None:
        """A certificate that the CA did not sign is a fault of the API's line."""
        with tempfile.TemporaryDirectory() as directory:
            ca_file = CertificateAuthority(directory).ca_file
            self.assert_fault(
                "certificate verify failed", "check the address, and the CA", WSPROXY_CA_FILE=ca_file
            )

    def test_unreachable(self) -> None:
        """An API that cannot be reached is a fault."""
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = str(closed.getsockname()[1])
        self.assert_fault("cannot be reached", "check the address", KUBERNETES_SERVICE_PORT=port)

    def test_no_answer(self) -> None:
        """An API that does not answer is a fault, after the dial timeout."""
        self.api.behaviour = Behaviour(hang=True)
        self.assert_fault("within 0.3 s", "is the address right?", WSPROXY_DIAL_TIMEOUT="0.3")

    def test_token_of_another_cluster(self) -> None:
        """A token that the API does not take is a fault."""
        self.api.rotate_token(write_file=False)
        self.assert_fault("(401)", "is it of this cluster?")

    def test_api_is_down(self) -> None:
        """An API that answers 5xx is a fault."""
        self.api.down = True
        self.assert_fault("answers 503", "look at the API server")

    def test_permission(self) -> None:
        """The API is asked for each enabled subresource, in each namespace that is served."""
        served = {"WSPROXY_NAMESPACES": "lab-1,lab-2", "WSPROXY_SUBRESOURCES": "console"}
        _, lines = self.check(**served)
        where = "virtualmachineinstances/{} of subresources.kubevirt.io in namespace {}"
        self.assertEqual(
            lines[-4:],
            [
                f"ok    permission: get {where.format(subresource, namespace)}"
                for subresource in ("console", "vnc")
                for namespace in ("lab-1", "lab-2")
            ],
        )
        asked = self.api.requests[-1]
        self.assertEqual((asked.method, asked.header("content-type")), ("POST", "application/json"))
        self.assertEqual(asked.values("authorization"), [f"Bearer {self.api.token}"])

    def test_no_permission(self) -> None:
        """A service account that may not open consoles is a fault."""
        self.api.forbid = True
        self.assert_fault("in all namespaces: not allowed", "WSPROXY_NAMESPACES")
        self.assert_fault("in namespace lab-1: not allowed", "bind a role", WSPROXY_NAMESPACES="lab-1")

    def test_permission_that_nobody_knows(self) -> None:
        """If the API does not answer an access review, that is not a fault."""
        path = "/lab/{namespace}/{vmi_name}/vnc"
        self.assertIn("not checked", self.check(WSPROXY_API_PATH=path)[1][-1])
        config = config_from_env(self.settings())
        for answer in ((403, b""), (201, b"{}"), (201, b"no JSON"), (201, b"[]")):
            with mock.patch("wsproxy.cli.check.Dialler.request", side_effect=[(200, b"{}"), answer]):
                finding = list(check(config))[-1]
            self.assertTrue(finding.ok)
            self.assertIn("the API does not say", str(finding))

    def test_screenshots(self) -> None:
        """With screenshots it also checks their permissions, and whether KubeVirt ends sessions for them."""
        on = {"WSPROXY_SCREENSHOTS": "true", "WSPROXY_NAMESPACES": "lab-1"}
        status, lines = self.check(**on)
        self.assertEqual(status, 0, lines)
        for line, subresource in zip(lines[-3:], ("vnc", "vnc/screenshot"), strict=False):
            self.assertIn(f"get virtualmachineinstances/{subresource} of", line)
        self.assertIn("KubeVirt: v1.7.0", lines[-1])
        for version in ("v1.6.3", ""):
            self.api.kubevirt_version = version
            self.assert_fault(version or "unknown", "switch WSPROXY_SCREENSHOTS off", **on)
        with mock.patch(
            "wsproxy.cli.check.Dialler.get", side_effect=UpstreamTimeout("it did not answer in time")
        ):
            self.assert_fault("does not report its version", "in time", **on)

    def test_few_descriptors(self) -> None:
        """A low limit on open files is a fault."""
        config = config_from_env(self.settings())
        with mock.patch("wsproxy.cli.check.raise_descriptor_limit", return_value=(256, 256)):
            findings = list(check(config))
        faults = [str(finding) for finding in findings if not finding.ok]
        self.assertEqual(len(faults), 1)
        self.assertIn("256, enough for 128 sessions", faults[0])
        self.assertIn("ulimit -n", faults[0])

    def test_limit_that_cannot_be_raised(self) -> None:
        """If the limit cannot be raised, the line shows the present limit."""
        with (
            mock.patch("resource.getrlimit", return_value=(256, 4096)),
            mock.patch("resource.setrlimit", side_effect=ValueError),
        ):
            self.assertEqual(raise_descriptor_limit(), (256, 256))
        with (
            mock.patch("resource.getrlimit", return_value=(256, 4096)),
            mock.patch("resource.setrlimit") as setrlimit,
        ):
            self.assertEqual(raise_descriptor_limit(), (256, 4096))
        setrlimit.assert_called_once_with(mock.ANY, (4096, 4096))


class CheckInDevMode(ProxyTestCase):
    """The same behind ``kubectl proxy``."""

    tls = False

    def test_all_is_well(self) -> None:
        """In dev mode neither CA nor token is needed."""
        status, out, _ = call("check", **_DEV, WS_REMOTE_URL=self.api.url)
        self.assertEqual(status, 0, out)
        self.assertIn("dev mode speaks no TLS", out)


if __name__ == "__main__":
    unittest.main()
