"""The settings of tokens: the keys that verify them, and the claims that they must have. No I/O."""

from __future__ import annotations

import math

from ..kinds import shown_url
from ..protocol.names import is_dns_label
from .setting import MASK, REQUIRED, Group, Setting, within

__all__ = ["CLAIMS", "KEYS"]

_MAX_LEEWAY = 300  # RFC 7519 section 4.1.4: no more than a few minutes


def _namespaces(names: tuple[str, ...]) -> str | None:
    bad = [name for name in names if not is_dns_label(name)]
    if bad:
        return f"has {bad[0]!r}; use Kubernetes names (DNS-1123 labels), such as lab-1"
    return None


def _lifetime_fault(seconds: float) -> str | None:
    return None if 0 < seconds < math.inf else f"is {seconds:g}; it must be a number of seconds above 0"


KEYS = Group(
    "Keys of tokens",
    (
        Setting(
            "secret_key",
            "Secrets",
            REQUIRED,
            "Secret that signs tokens (use 32 bytes or more), or public keys (PEM) that verify them. "
            "`secret_key_files` or `jwks` may replace it.",
            shown_default="none",
            value="SECRET",
            variable="SECRET_KEY",
            stand_in="-" * 32,
            mask=lambda secrets: MASK if secrets else secrets,
        ),
        Setting(
            "secret_key_files",
            "Files",
            (),
            "Files that each contain a secret, or public keys (PEM).",
            value="FILE,FILE",
            variable="SECRET_KEY_FILE",
            stand_in=("unset",),
            reread=True,
        ),
        Setting(
            "jwks",
            "str",
            None,
            "JWK Set with the keys that verify tokens: a file, or an `https` URL. An `http` URL must have a "
            "loopback address.",
            value="FILE|URL",
            stand_in="unset",
            mask=lambda url: shown_url(url)[1:-1],
            reread=True,
        ),
        Setting(
            "jwks_interval",
            "Timeout",
            300.0,
            "Time between two fetches of the URL in `jwks`.",
            unit="seconds",
        ),
        Setting(
            "jwks_ca_file",
            "str",
            None,
            "File with the certificate authorities (PEM) for the URL in `jwks`.",
            shown_default="the system's",
            value="FILE",
        ),
        Setting(
            "algorithms",
            "Restriction",
            None,
            "The only JWS algorithms that the proxy accepts.",
            shown_default="`HS256` for a secret, and all algorithms that fit a public key",
            value="ALG,ALG",
        ),
    ),
)

CLAIMS = Group(
    "Claims of tokens",
    (
        Setting(
            "issuer",
            "Restriction",
            None,
            "The only issuers (`iss`) whose tokens the proxy accepts.",
            shown_default="any",
            value="ISS,ISS",
        ),
        Setting(
            "audience",
            "Restriction",
            None,
            "The only audiences (`aud`) whose tokens the proxy accepts. Without it, the proxy refuses every "
            "token that names an audience.",
            value="AUD,AUD",
        ),
        Setting(
            "leeway",
            "float",
            None,
            "Tolerated clock difference to the issuer of a token, 0 to 300.",
            shown_default="5 for `nbf` and `iat`, 0 for `exp`",
            unit="seconds",
            check=within(0, _MAX_LEEWAY, "it must be {} to {} seconds"),
        ),
        Setting("allow_eternal_tokens", "bool", False, "Accept tokens without `exp`."),
        Setting(
            "token_lifetime",
            "float",
            None,
            "Longest life that the issuer gives tokens. A token without `iat` counts as issued that long "
            "before its `exp`. Only revocations use this.",
            shown_default="unknown",
            unit="seconds",
            check=_lifetime_fault,
        ),
        Setting(
            "claim_user",
            "OrderedTexts",
            ("/id", "/sub"),
            "JSON pointers to the user. The proxy uses the first one whose claim the token has.",
            value="POINTER,POINTER",
        ),
        Setting(
            "claim_namespace",
            "str",
            "/lab_instance/namespace_name",
            "JSON pointer to the namespace.",
            value="POINTER",
        ),
        Setting(
            "claim_vmis",
            "str",
            "/lab_instance/allowed_vmi_names",
            "JSON pointer to the list of VMs.",
            value="POINTER",
        ),
        Setting(
            "claim_takeover",
            "str",
            "/may_take_over",
            "JSON pointer to a claim. If the claim is `false`, the token cannot take over consoles.",
            value="POINTER",
        ),
        Setting(
            "allow_vmi_patterns",
            "bool",
            False,
            "Let `*` in the token's list of VMs match any characters.",
        ),
        Setting(
            "namespaces",
            "Restriction",
            None,
            "The only namespaces that the proxy serves.",
            shown_default="all",
            value="NAME,NAME",
            check=_namespaces,
        ),
    ),
)
