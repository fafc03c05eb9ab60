"""Settings that the documents recommend as a whole, with what they are for."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.issuer import wall_clock
from tests.support.jws import public_jwk, signed_token
from wsproxy import WebsocketProxy, config_from_env
from wsproxy.testing import ProxyTestCase, UpgradeRefused

_PAGE = Path(__file__).parents[2] / "docs" / "topics" / "tokens.md"


def recipe(title: str) -> dict[str, str]:
    """Return the settings in the first block below a heading."""
    text = _PAGE.read_text(encoding="utf-8").split(f"## {title}\n")[1]
    [block] = re.findall(r"\n\n((?:    WSPROXY_\w+=.*\n)+)\n", text)[:1]
    return dict(line.strip().split("=", 1) for line in block.splitlines())


class OtherIssuersTest(ProxyTestCase):
    def test_recipe(self) -> None:
        """A token of an OpenID provider opens the console that its claims name, and no other."""
        key = ec.generate_private_key(ec.SECP256R1())
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        keys = Path(directory.name, "keys.json")
        one = public_jwk(key.public_key())
        keys.write_text(json.dumps({"keys": [{**one, "kid": "1", "alg": "ES256"}]}), encoding="utf-8")
        settings = recipe("Tokens of other issuers") | {
            "WSPROXY_JWKS": str(keys),
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self.api.port),
            "WSPROXY_CA_FILE": self.api.ca_file,
            "WSPROXY_TOKEN_FILE": self.api.token_file,
        }
        proxy = WebsocketProxy.from_config(config_from_env(settings)).run_in_thread("127.0.0.1", 0)
        self.addCleanup(proxy.stop_thread)
        claims = {
            "iss": settings["WSPROXY_ISSUER"],
            "aud": [settings["WSPROXY_AUDIENCE"], "account"],
            "sub": "b1946ac9",
            "preferred_username": "ann",
            "exp": int(wall_clock()) + 300,
            "iat": int(wall_clock()),
            "jti": "onrtac:1",
            "namespace": self.namespace,
            "vmis": ["ubuntu"],
        }
        token = signed_token(claims, key, "ES256", {"kid": "1"})
        self.add_desktop("ubuntu")
        self.open_console("ubuntu", token=token, proxy=proxy)
        self.assertEqual([session.user for session in proxy.sessions()], ["ann"])
        with self.assertRaises(UpgradeRefused):
            self.open_console("debian", token=token, proxy=proxy)
