"""A real haproxy in front: as a load balancer that passes TCP on, and as OpenShift's router has it."""

from __future__ import annotations

import socket
import unittest

from tests.integration.programs import ProgramTestCase, needs
from tests.support.ports import free_port
from wsproxy.proxy import WebsocketProxy
from wsproxy.testing.rfb.raw_client import RawClient

_WITHIN = 20.0

_TCP = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen console
    bind {front}
    server wsproxy {back} {options}
"""

# The headers that OpenShift's router adds (its haproxy-config.template), both kinds in each request.
_ROUTER = """
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    timeout tunnel 30s
frontend console
    bind {front}
    option forwardfor
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header X-Forwarded-Port %[dst_port]
    http-request set-header X-Forwarded-Proto http
    http-request add-header Forwarded for=%[src];host=%[req.hdr(host)];proto=%[req.hdr(X-Forwarded-Proto)]
    default_backend wsproxy
backend wsproxy
    server wsproxy {back}
"""


@needs("haproxy", "haproxy")
class Balancer(ProgramTestCase):
    def start_haproxy(self, template: str, proxy: WebsocketProxy, options: str = "") -> int:
        """Start one in front of a proxy, and return its port once it listens."""
        port = free_port()
        back = f"127.0.0.1:{proxy.address[1]}"
        with open(self.path("haproxy.cfg"), "w", encoding="ascii") as file:
            file.write(template.format(front=f"127.0.0.1:{port}", back=back, options=options))
        self.start_program("haproxy", "-db", "-f", self.path("haproxy.cfg"))

        def listens() -> bool:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
            except OSError:
                return False
            return True

        self.wait_for(listens, "haproxy")
        return port

    def named(self, port: int, *headers: str) -> str:
        """Open a console through it, from an address of one's own, and return how the log names that."""
        with self.assertLogs("wsproxy.session", "INFO") as logs:
            sock = socket.create_connection(("127.0.0.1", port), _WITHIN, source_address=("127.0.0.2", 0))
            if self.client_context:
                sock = self.client_context.wrap_socket(sock, server_hostname="127.0.0.1")
            with sock:
                sock.sendall(RawClient.request(f"/{self.token('ubuntu')}/ubuntu", headers))
                answer = b""
                while b"RFB 003.008\n" not in answer:
                    received = sock.recv(4096)
                    self.assertTrue(received, answer)
                    answer += received
            self.assertTrue(answer.startswith(b"HTTP/1.1 101 "), answer)
        (line,) = [line for line in logs.output if " opened: " in line]
        return line.partition("client ")[2].partition(" user")[0]

    def test_proxy_protocol(self) -> None:
        """Both versions of the PROXY protocol name the client, and health checks pass."""
        self.add_desktop("ubuntu")
        for options in ("send-proxy", "send-proxy-v2", "send-proxy-v2-ssl", "send-proxy check inter 50ms"):
            proxy = self.start_proxy(trusted_proxies=["127.0.0.1"], proxy_protocol=True)
            with self.subTest(options=options), self.assertNoLogs("wsproxy", "WARNING"):
                port = self.start_haproxy(_TCP, proxy, options)
                self.assertRegex(self.named(port), r"^127\.0\.0\.2 via 127\.0\.0\.1:\d+$")
            proxy.stop_thread()


@needs("haproxy", "haproxy")
class BeforeTLS(Balancer):
    """The proxy speaks TLS, and the balancer passes it on."""

    client_tls = True


@needs("haproxy", "haproxy")
class OpenShift(Balancer):
    def test_both_kinds(self) -> None:
        """Both kinds of headers, of one proxy that is trusted, agree: on the client, and on its own page."""
        self.add_desktop("ubuntu")
        proxy = self.start_proxy(trusted_proxies=["127.0.0.1"], allow_origin=["https://lab.example"])
        port = self.start_haproxy(_ROUTER, proxy)
        self.assertRegex(self.named(port, "Origin: http://proxy"), r"^127\.0\.0\.2 via 127\.0\.0\.1:\d+$")
        # What a client writes itself is handed on, before what the router adds.
        spoofed = ["Forwarded: for=6.6.6.6;host=evil.example", "X-Forwarded-For: 7.7.7.7"]
        self.assertRegex(self.named(port, *spoofed), r"^127\.0\.0\.2 via 127\.0\.0\.1:\d+$")


if __name__ == "__main__":
    unittest.main()
