"""``wsproxy check``: reports whether this proxy could serve, and remedies if it could not."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..admin.auth import token_file_fault
from ..config import Config
from ..exceptions import ConfigError, Refused, TransportClosed
from ..net.addresses import host_and_port
from ..net.certificates import check_certificate, days_left
from ..net.resolver import Resolver
from ..net.tls_context import ClientTLS, ServerTLS
from ..runtime.deadline import Deadline
from ..state.stores.choice import check_store
from ..state.stores.findings import FAULT, WARNING
from ..state.stores.places import StateRules
from ..state.stores.rule_file import rules_in
from ..telemetry.audit import audit_log_fault
from ..tokens.key_store import KeyStore
from ..upstream.dialler import Dialler, read_token
from ..upstream.kubevirt import kubevirt_version, leaves_console_alone
from ..web.static_files import StaticFiles

__all__ = ["Finding", "check", "raise_descriptor_limit"]

_DESCRIPTORS_PER_SESSION = 2
_FEW_DESCRIPTORS = 1024
_PROBE = "/version"
_ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    :ivar ok: whether a proxy can serve with the checked thing.
    :ivar text: what was found; a fault or a warning includes its remedy.
    :ivar warns: whether there is something that the operator should know.
    """

    ok: bool
    text: str
    warns: bool = False

    def __str__(self) -> str:
        level = "warn " if self.warns else "ok   "
        return f"{level if self.ok else 'FAULT'} {self.text}"


def check(config: Config) -> Iterator[Finding]:
    """Check everything that ``config`` depends on. Blocks for at most the dial timeout for each finding."""
    yield Finding(
        True,
        f"settings: API at {config.upstream.below('')}, "
        f"listening on {config.listen or host_and_port(config.host, config.port)}",
    )
    yield _descriptors()
    yield _certificate(config)
    yield _keys(config)
    if config.web is not None or config.console_page:
        yield _files(config)
    if config.audit_log is not None:
        yield _audit_log(config.audit_log)
    if config.admin_token_file is not None:
        yield _operator(config.admin_token_file)
    yield from _state(config.state_rules)
    if config.state_file is not None:
        yield _revocations(config.state_file)
    files = [_ca(config), _token(config)]
    yield from files
    if all(finding.ok for finding in files):
        yield (api := _api(config))
        if api.ok:
            yield from _permissions(config)
            if config.screenshots:
                yield _kubevirt(config)


def raise_descriptor_limit() -> tuple[int, int]:
    """Raise the soft limit on open files to the hard limit; return the soft limit before and after."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):
        return soft, soft  # macOS reports a hard limit that it does not accept
    return soft, hard


def _descriptors() -> Finding:
    _, limit = raise_descriptor_limit()
    if limit == resource.RLIM_INFINITY:
        return Finding(True, "descriptors: no limit")
    text = f"descriptors: {limit}, enough for {limit // _DESCRIPTORS_PER_SESSION} sessions"
    if limit < _FEW_DESCRIPTORS:
        return Finding(False, f"{text}; raise the hard limit on open files (ulimit -n, LimitNOFILE=)")
    return Finding(True, text)


def _certificate(config: Config) -> Finding:
    files = config.server_tls
    if files is None:
        return Finding(True, "certificate: none, clients connect without TLS")
    what = f"certificate: {files.certfile}"
    try:
        ServerTLS(files)
        days = days_left(check_certificate(files.certfile, files.keyfile))
    except ValueError as exc:
        remedy = "set WSPROXY_TLS_CERT and WSPROXY_TLS_KEY to a valid chain and its key"
        return Finding(False, f"{what}: {exc}; {remedy}")
    demanded = "" if files.client_ca is None else f", clients need a certificate issued by {files.client_ca}"
    return Finding(True, f"{what}, {days} days left{demanded}")


def _files(config: Config) -> Finding:
    try:
        files = StaticFiles(config.file_rules)
    except ConfigError as exc:
        return Finding(False, f"files for browsers: {exc}")
    if files.missing:
        return Finding(False, f"files for browsers: {files.missing}")
    return Finding(True, f"files for browsers: {files.count} paths")


def _audit_log(path: str) -> Finding:
    if fault := audit_log_fault(path):
        return Finding(False, f"audit log: {fault}")
    return Finding(True, f"audit log: {path}")


def _operator(token_file: str) -> Finding:
    if fault := token_file_fault(token_file):
        return Finding(False, fault)
    return Finding(True, f"operator's token: {token_file}")


def _state(rules: StateRules) -> Iterator[Finding]:
    try:
        for level, text in check_store(rules):
            yield Finding(level != FAULT, f"state: {rules.place}: {text}", level == WARNING)
    except ConfigError as exc:
        yield Finding(False, f"state: {rules.place}: {exc}")


def _revocations(path: str) -> Finding:
    try:
        return Finding(True, f"revocations: {path}, {len(rules_in(path))} rules")
    except ConfigError as exc:
        return Finding(False, f"revocations: {exc}")


def _keys(config: Config) -> Finding:
    what = f"keys: {config.jwks_location.text}" if config.jwks_location else "keys"
    resolver = Resolver()
    try:
        keys = KeyStore(config.key_rules, resolver)
        keys.load(Deadline(config.dial_timeout))
        if count := len(keys.current().keys):
            return Finding(True, f"{what}: {count} to verify tokens with")
        return Finding(False, f"{what}: none can verify tokens; ask the issuer of the tokens")
    except ConfigError as exc:
        return Finding(False, f"{what}: {exc}; look at SECRET_KEY_FILE and WSPROXY_JWKS")
    except (TransportClosed, OSError, ValueError) as exc:
        remedy = "check the URL, and WSPROXY_JWKS_CA_FILE for a TLS error"
        return Finding(False, f"{what} cannot be fetched: {exc}; {remedy}")
    finally:
        resolver.stop()


def _ca(config: Config) -> Finding:
    if not config.upstream.tls:
        return Finding(True, "CA: none needed, dev mode speaks no TLS")
    file = config.sslopt.get("ca_certs", "the system's authorities")
    remedy = "set WSPROXY_CA_FILE to the file with the API's authorities"
    return _try(lambda: ClientTLS(config.sslopt).context(), f"CA: {file}", remedy)


def _token(config: Config) -> Finding:
    if not config.upstream.tls:
        return Finding(True, "service-account token: none needed, kubectl proxy has its own")
    remedy = "give the pod a service account, or set WSPROXY_TOKEN_FILE"
    return _try(lambda: read_token(config.token_file), f"service-account token: {config.token_file}", remedy)


def _try(read: Callable[[], object], what: str, remedy: str) -> Finding:
    try:
        read()
    except (OSError, ValueError) as exc:
        return Finding(False, f"{what}: {exc}; {remedy}")
    return Finding(True, what)


@contextmanager
def _dialler(config: Config) -> Iterator[Dialler]:
    """Yield a dialler, with a resolver that is stopped afterwards."""
    resolver = Resolver()
    try:
        yield Dialler(config.upstream_rules, resolver)
    finally:
        resolver.stop()


def _api(config: Config) -> Finding:
    what = f"API: {config.upstream.below('')}"
    try:
        with _dialler(config) as dialler:
            status, _ = dialler.request(_PROBE, Deadline(config.dial_timeout))
    except TimeoutError:
        return Finding(
            False, f"{what} does not answer within {config.dial_timeout:g} s; is the address right?"
        )
    except (TransportClosed, OSError) as exc:
        return Finding(
            False, f"{what} cannot be reached: {exc}; check the address, and the CA for a TLS error"
        )
    if status == 401:
        return Finding(False, f"{what} rejects the service-account token (401); is it of this cluster?")
    if status >= 500:
        return Finding(False, f"{what} answers {status}; look at the API server's log")
    return Finding(True, f"{what} answers")


def _permissions(config: Config) -> Iterator[Finding]:
    """Ask the API whether RBAC allows each enabled subresource, in each namespace that the proxy serves."""
    if (resource := config.path_template.resource) is None:
        yield Finding(True, f"permission: not checked, {config.api_path} is not a resource of the API")
        return
    wanted = set(config.routes.enabled)
    if config.screenshots:
        wanted |= {"vnc", "vnc/screenshot"}  # the API server sees "vnc" in the path of the screenshot
    for subresource in sorted(wanted):
        for namespace in config.namespaces or ("",):
            yield _permission(config, *resource, subresource, namespace)


def _permission(config: Config, group: str, resource: str, subresource: str, namespace: str) -> Finding:
    where = f"in namespace {namespace}" if namespace else "in all namespaces"
    what = f"permission: get {resource}/{subresource} of {group} {where}"
    wanted = {
        "verb": "get",
        "group": group,
        "resource": resource,
        "subresource": subresource,
        "namespace": namespace,
    }
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": wanted},
    }
    try:
        with _dialler(config) as dialler:
            status, body = dialler.request(
                _ACCESS_REVIEWS, Deadline(config.dial_timeout), json.dumps(review).encode()
            )
        allowed = status == 201 and json.loads(body)["status"]["allowed"]
    except (TransportClosed, OSError, ValueError, KeyError, TypeError) as exc:
        return Finding(True, f"{what}: the API does not say ({type(exc).__name__})")
    if status != 201:
        return Finding(True, f"{what}: the API does not say ({status})")
    if allowed is not True:
        remedy = "bind a role with it to the service account"
        if not namespace:
            remedy += ", or name the namespaces where it is bound in WSPROXY_NAMESPACES"
        return Finding(False, f"{what}: not allowed; {remedy}")
    return Finding(True, what)


def _kubevirt(config: Config) -> Finding:
    """Check by its version whether KubeVirt takes screenshots without evicting a VNC client."""
    path = config.path_template.version_path
    assert path is not None, "the settings have been checked"
    try:
        with _dialler(config) as dialler:
            version = kubevirt_version(path, dialler.get, Deadline(config.dial_timeout))
    except Refused as refused:
        detail = refused.log_detail or refused.message
        return Finding(False, f"KubeVirt does not report its version, which screenshots need: {detail}")
    if leaves_console_alone(version):
        return Finding(True, f"KubeVirt: {version}, takes screenshots without the VNC console")
    return Finding(
        False,
        f"KubeVirt: {version or 'its version is unknown'}; screenshots need 1.7: older versions use the VNC "
        "console (before 1.6.3 they evict its client); update KubeVirt, or switch WSPROXY_SCREENSHOTS off",
    )
