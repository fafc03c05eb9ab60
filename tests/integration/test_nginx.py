"""The recipe for nginx, with a real one."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

from tests.integration.programs import ProgramTestCase, needs
from tests.support.ports import free_port
from tests.support.proxy_process import ProxyProcess
from wsproxy.testing.kubevirt.certificates import CertificateAuthority
from wsproxy.testing.kubevirt.frames import BINARY, PING, PONG
from wsproxy.testing.rfb.raw_client import RawClient, client_context

_RECIPE = Path(__file__).parent.parent.parent / "examples" / "nginx" / "wsproxy.conf"
_TIMEOUT = 60.0
# The recipe goes into the http block of this. As root, the workers are root, too, and so may use the socket.
_MAIN = """
{user}
daemon off;
pid {directory}/nginx.pid;
error_log stderr info;
events {{}}
http {{
    access_log {directory}/access.log;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    {recipe}
}}
"""


@needs("nginx", "nginx")
class NginxTest(ProgramTestCase):
    """wsproxy at a Unix socket behind nginx, which speaks TLS."""

    tls = False

    def setUp(self) -> None:
        super().setUp()
        self.api.add_vmi("vm", self.namespace)
        authority = CertificateAuthority(self.directory)
        self.certificate = authority.issue()
        self.context = client_context(authority.ca_file)

    def start_wsproxy(self, **settings: str) -> ProxyProcess:
        given = {
            "HOST_PATH_PREFIX": "consoles",
            "WSPROXY_LISTEN": f"unix:{self.path('socket')}",
            "WSPROXY_TRUSTED_PROXIES": "unix",
        }
        proxy = ProxyProcess(self.api, **(given | settings))
        self.addCleanup(proxy.close)
        return proxy

    def start_nginx(self, timeout: str = "90s") -> None:
        """Start nginx with the recipe, in which nothing but what is this machine's is changed."""
        self.address = ("127.0.0.1", free_port())
        recipe = _RECIPE.read_text(encoding="utf-8")
        for ours, theirs in (
            ("listen 443 ssl;", f"listen 127.0.0.1:{self.address[1]} ssl;"),
            ("unix:/run/wsproxy/socket max_fails", f"unix:{self.path('socket')} max_fails"),
            ("/etc/nginx/tls/tls.crt", self.certificate[0]),
            ("/etc/nginx/tls/tls.key", self.certificate[1]),
            ("/var/log/nginx/wsproxy-unanswered.log", self.path("unanswered.log")),
            ("proxy_read_timeout 90s;", f"proxy_read_timeout {timeout};"),
            ("proxy_send_timeout 90s;", f"proxy_send_timeout {timeout};"),
        ):
            self.assertEqual(recipe.count(ours), 1, ours)
            recipe = recipe.replace(ours, theirs)
        user = "user root;" if os.getuid() == 0 else ""
        with open(self.path("nginx.conf"), "w", encoding="utf-8") as file:
            file.write(_MAIN.format(user=user, directory=self.directory, recipe=recipe))
        self.start_program("nginx", "-p", self.directory, "-c", self.path("nginx.conf"), "-e", "stderr")
        self.wait_for(self.listens, "nginx")

    def listens(self) -> bool:
        try:
            socket.create_connection(self.address).close()
        except OSError:
            return False
        return True

    def ask(self, *headers: str) -> RawClient:
        """Ask for a session, as a client of nginx's."""
        client = RawClient(self.address, tls=self.context)
        self.addCleanup(client.close)
        host = f"Host: 127.0.0.1:{self.address[1]}"
        request = RawClient.request(f"/consoles/{self.token('vm')}/vm", headers)
        client.send_raw(request.replace(b"Host: proxy", host.encode()))
        client.read_head()
        return client

    def assert_echoes(self, client: RawClient) -> None:
        self.assertEqual(client.status, 101, client.head)
        client.send_frame(BINARY, b"console")
        self.assertEqual(client.recv_frame().payload, b"console")

    def test_who_the_client_is(self) -> None:
        """nginx's word of the client is taken, and not the client's own; no log has the token."""
        proxy = self.start_wsproxy()
        self.start_nginx()
        client = self.ask("X-Forwarded-For: 192.0.2.7", "Forwarded: for=192.0.2.8")
        self.assert_echoes(client)
        client.close()
        proxy.stop()
        self.assertRegex(proxy.output, rb"opened: client 127\.0\.0\.1 via unix user ")
        with open(self.path("access.log"), encoding="utf-8") as file:
            self.assertEqual(file.read(), "")
        self.assertNotIn(self.token("vm").partition(".")[0], self.log())

    def test_nobody_behind(self) -> None:
        """A request that nginx cannot pass on is logged, without its token; what wsproxy refuses is not."""
        self.start_nginx()
        self.assertEqual(self.ask().status, 502)
        self.api.down = True
        self.start_wsproxy()
        for _ in range(2):
            refused = self.ask()
            self.assertEqual((refused.status, refused.header("Content-Type")), (502, "application/json"))
        with open(self.path("unanswered.log"), encoding="utf-8") as file:
            [line] = file.read().splitlines()
        self.assertRegex(line, r" 127\.0\.0\.1 502 by nginx: unix:\S+ did not answer")
        self.assertNotIn(self.token("vm").partition(".")[0], line)
        self.assertNotIn("/consoles/", line)

    def test_own_pages(self) -> None:
        """A page of the host that the browser asked is allowed, others are not."""
        self.start_wsproxy(WSPROXY_ALLOW_ORIGIN="https://elsewhere.example")
        self.start_nginx()
        self.assert_echoes(self.ask(f"Origin: https://127.0.0.1:{self.address[1]}"))
        foreign = self.ask("Origin: https://foreign.example")
        foreign.recv_frame()
        foreign.send_frame(BINARY, b"RFB 003.008\n")
        foreign.recv_frame()
        self.assertEqual(foreign.recv_close()[0], 4403)

    def test_quiet_session(self) -> None:
        """A session in which nothing is said outlives nginx's timeouts, by the pings."""
        self.start_wsproxy(WSPROXY_PING_INTERVAL="1")
        self.start_nginx(timeout="3s")
        client = self.ask()
        for _ in range(8):
            ping = client.recv_frame(_TIMEOUT)
            self.assertEqual(ping.opcode, PING)
            client.send_frame(PONG, ping.payload)
        self.assert_echoes(client)

    def test_restart(self) -> None:
        """A session gets its Close through nginx; a successor at the same path serves the next client."""
        first = self.start_wsproxy(WSPROXY_REUSE_PORT="true")
        self.start_nginx()
        client = self.ask()
        self.assert_echoes(client)
        self.start_wsproxy(WSPROXY_REUSE_PORT="true")
        first.process.send_signal(signal.SIGTERM)
        self.assertEqual(client.recv_close(), (1012, "restarting"))
        client.send_close(1012)
        client.close()
        self.assertEqual(first.stop(), 0)
        self.assert_echoes(self.ask())
