"""Checks all settings of one proxy as a whole, and makes the rules of its parts from them."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING

from .access.control import AccessRules
from .access.credentials import credential_faults
from .admin.operator import OperatorRules
from .exceptions import ConfigError
from .kinds import collect, shown_url
from .net.addresses import ListenAddress, WebURL, listen_fault
from .net.tls_context import ServerTLSFiles, sslopt_faults
from .protocol.client import TrustedProxies
from .protocol.origin import OriginPolicy
from .protocol.routing import RouteRules, prefix_segments
from .relay.lifetime import LifetimeRules
from .settings.config_file import read_config_file
from .settings.signature import spelled_out
from .settings.sources import Choice, Given, choose, of_environment, of_file, of_flags, of_mapping
from .settings.table import FIELDS, accepted, checked
from .settings.typed import ConfigOptions, Settings
from .state.console_policies import ConsolePolicies
from .state.limits import LimitRules
from .state.participant.known_rules import RevocationRules
from .state.participant.participant import ParticipantRules
from .state.stores.choice import replica_name
from .state.stores.places import StatePlace, StateRules, place_faults
from .tokens.claims import CLOCK_LEEWAY, ClaimRules
from .tokens.jwks import JWKSLocation
from .tokens.key_store import KeyRules
from .tokens.keys import Keyring, load_keyring
from .upstream.dialler import UpstreamRules
from .upstream.location import ApiPath, api_url
from .web.csp import frame_ancestors
from .web.endpoints import EndpointRules
from .web.screenshots import PictureRules
from .web.static_files import FileRules
from .web.urls import URLRules

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Config", "config_from_env", "config_from_mapping", "settings_of_program"]

_SLOTS = "max_sessions", "max_sessions_per_user", "max_sessions_per_vmi"
_NEED_ONE_TRUTH = *_SLOTS, "max_failures", "tickets", "admin", "state_file"


class Config(Settings):
    """All settings of one proxy, checked as a whole.

    The attributes of :class:`.Settings` hold the given values, each in the form of its kind. The attributes
    of this class are made from those: each part of the proxy takes the rules that it needs.

    :param remote_url: base URL of the Kubernetes API; ``wss://`` in a cluster, ``ws://`` in dev mode.
    :param secret_key: HMAC secret of the tokens, or PEM public keys, or several of these; "" for none.
    :param options: all other settings, by name.
    :raises ConfigError: lists every fault.
    :raises TypeError: if a name is not that of a setting; the text suggests a similar name.
    """

    @spelled_out(FIELDS)
    def __init__(
        self,
        *,
        remote_url: str,
        secret_key: str | bytes | Iterable[str | bytes],
        **options: Unpack[ConfigOptions],
    ) -> None:
        given: dict[str, object] = {"remote_url": remote_url, "secret_key": secret_key, **options}
        accepted("Config", given, FIELDS)
        faults: list[str] = []
        values, wrong = checked(given, faults)
        super().__init__(**values)
        for name, made in vars(Config).items():
            if isinstance(made, cached_property):
                collect(faults, partial(getattr, self, name))
        faults += self._contradictions(wrong)
        if faults or wrong:
            raise ConfigError(list(dict.fromkeys(faults)))

    def _contradictions(self, wrong: Collection[str]) -> list[str]:
        """Return the faults of settings that are valid alone, but contradict each other.

        :param wrong: names of the settings that are not valid alone.
        """
        faults = [] if {"remote_url", "local_dev_mode"} & set(wrong) else self._mode_faults()
        if (
            self.screenshots
            and (path := collect([], lambda: self.path_template))
            and path.version_path is None
        ):
            faults.append(
                "screenshots is set, but api_path is not a path of a Kubernetes API group, which screenshots "
                "need; leave one out"
            )
        if self.listen is not None and (fault := listen_fault(self.listen, self.reuse_port)):
            faults.append(fault)
        for name in ("tls_key", "tls_client_ca"):
            if getattr(self, name) is not None and self.tls_cert is None:
                faults.append(f"{name} is set but tls_cert is not; set tls_cert, too, or leave {name} out")
        for name in ("novnc", "xterm"):
            if getattr(self, name) is not None and not self.console_page:
                faults.append(f"{name} is set but console_page is not; set that, too, or leave {name} out")
        faults += sslopt_faults(self.sslopt)
        if self.frame_ancestors and not self.console_page and self.web is None:
            faults.append(
                "frame_ancestors is set but neither console_page nor web is; set one of them, or leave it out"
            )
        if self.admin_token_file is not None and self.admin is None:
            faults.append("admin_token_file is set but admin is not; set admin to the listener's address")
        if "state" not in wrong:
            given = {name for name in FIELDS if getattr(self, name) != FIELDS[name].default}
            faults += place_faults(self._place, given, self.workers)
        faults += credential_faults(
            self.credentials, self.cookie_name, self.allow_origin or (), self.tls_client_ca is not None
        )
        return faults

    def _mode_faults(self) -> list[str]:
        upstream = collect([], lambda: self.upstream)
        if upstream and not self.local_dev_mode and not upstream.tls:
            return [
                f"remote_url is {self.remote_url!r} but local_dev_mode is off: the service-account token "
                "needs wss://; set LOCAL_DEV_MODE=true for kubectl proxy"
            ]
        if upstream and self.local_dev_mode and upstream.tls:
            return [
                f"remote_url is {self.remote_url!r} but local_dev_mode is on, which speaks no TLS; use ws://"
            ]
        return []

    # The rules that are made from the settings.

    @cached_property
    def _place(self) -> StatePlace:
        return StatePlace.parse(self.state)

    @cached_property
    def upstream(self) -> WebURL:
        """The URL of the Kubernetes API."""
        return api_url(self.remote_url)

    @cached_property
    def path_template(self) -> ApiPath:
        """The API path of a console."""
        return ApiPath(self.api_path)

    @cached_property
    def routes(self) -> RouteRules:
        """Which paths lead to which subresource."""
        default = self.path_template.subresource
        return RouteRules(self._prefix, default, frozenset({default, *self.subresources}))

    @cached_property
    def _prefix(self) -> tuple[str, ...]:
        return prefix_segments(self.host_path_prefix)

    @cached_property
    def keyring(self) -> Keyring:
        """The keys of ``secret_key``."""
        elsewhere = bool(self.secret_key_files or self.jwks)
        return load_keyring(self.secret_key, self.algorithms, elsewhere)

    @cached_property
    def jwks_location(self) -> JWKSLocation | None:
        """Where the JWK Set is; None if no setting names one."""
        return JWKSLocation.parse(self.jwks) if self.jwks else None

    @cached_property
    def claim_rules(self) -> ClaimRules:
        """The claims that a token must have, and where they are."""
        return ClaimRules.load(
            issuers=self.issuer,
            audiences=self.audience,
            leeway=self.leeway,
            eternal=self.allow_eternal_tokens,
            user=self.claim_user,
            namespace=self.claim_namespace,
            vmis=self.claim_vmis,
            takeover=self.claim_takeover,
            patterns=self.allow_vmi_patterns,
            namespaces=self.namespaces,
        )

    @cached_property
    def console_policies(self) -> ConsolePolicies:
        """Which client keeps a console if several want it."""
        return ConsolePolicies(self.console)

    @cached_property
    def origin_policy(self) -> OriginPolicy:
        """Which pages may use the proxy."""
        return OriginPolicy(self.allow_origin, self.require_origin)

    @cached_property
    def ancestors(self) -> str:
        """The origins that may embed the proxy's pages in a frame, as a directive of a CSP header."""
        return frame_ancestors(self.frame_ancestors)

    @cached_property
    def admin_address(self) -> ListenAddress | None:
        """The address of the operator's listener; None if there is no such listener."""
        try:
            return None if self.admin is None else ListenAddress.parse(self.admin)
        except ValueError as exc:
            raise ConfigError([f"admin is {shown_url(self.admin or '')}; {exc}"]) from None

    @property
    def operator_rules(self) -> OperatorRules | None:
        """Where the operator's listener is; None if there is no such listener."""
        address = self.admin_address
        return OperatorRules(address, self.admin_token_file, self.admin_hosts) if address else None

    @cached_property
    def trusted(self) -> TrustedProxies:
        """Which proxies are trusted, and which of their headers count."""
        return TrustedProxies.parse(self.trusted_proxies, self.forwarded_headers, self.proxy_protocol)

    @cached_property
    def lifetime_rules(self) -> LifetimeRules:
        """How long a session may last."""
        return LifetimeRules(self.grace, self.idle_timeout, self.max_age)

    @cached_property
    def limit_rules(self) -> LimitRules:
        """How many sessions, connections and failed attempts there may be."""
        slots = self.max_sessions, self.max_sessions_per_user, self.max_sessions_per_vmi
        return LimitRules(*slots, self.max_pending_per_address, self.max_failures)

    @cached_property
    def state_rules(self) -> StateRules:
        """Where the state that processes share is kept."""
        return StateRules(
            self._place,
            counts_alone=self.state_unavailable == "local",
            lease=self.state_lease,
            file=self.state_file,
            replica=self.replica_name or "",
            group=self.state_group,
            prefix=self.state_prefix,
            ca_file=self.state_ca_file,
            password_file=self.state_password_file,
        )

    @property
    def revocation_rules(self) -> RevocationRules:
        """How tokens are compared with revocation rules."""
        return RevocationRules(
            self.token_lifetime,
            leeway=CLOCK_LEEWAY if self.leeway is None else self.leeway,
            expiry_leeway=self.leeway or 0.0,
            eternal=self.allow_eternal_tokens,
        )

    @property
    def participant_rules(self) -> ParticipantRules:
        """What concerns several sessions at once."""
        state = self.state_rules
        return ParticipantRules(
            self.console_policies,
            self.limit_rules.slots,
            self.revocation_rules,
            self.show_user,
            name=replica_name(state),
            lease=state.lease,
            alone=state.counts_alone,
        )

    @property
    def needs_one_truth(self) -> list[str]:
        """The settings that are true only if all processes share their state."""
        names = [name for name in _NEED_ONE_TRUTH if getattr(self, name)]
        return [*names, *(["console"] if self.console_policies.arbitrate else [])]

    def with_state(self, state: str) -> Config:
        """Return the same settings with another place of the shared state.

        :param state: as the setting of that name.
        """
        changed = copy.copy(self)
        object.__setattr__(changed, "state", state)
        for made in ("_place", "state_rules"):
            changed.__dict__.pop(made, None)
        return changed

    @property
    def is_state_shared(self) -> bool:
        """Whether the store may be used by other processes."""
        return self.state_rules.is_shared

    @property
    def access_rules(self) -> AccessRules:
        """Which clients may come in."""
        certificates = self.tls_client_ca is not None
        return AccessRules(
            self.routes, self.credentials, self.cookie_name, self.origin_policy, certificates, self.namespaces
        )

    @property
    def key_rules(self) -> KeyRules:
        """Where the keys that verify tokens are."""
        files, url = self.secret_key_files, self.jwks_location
        return KeyRules(self.keyring, self.algorithms, files, url, self.jwks_interval, self.jwks_ca_file)

    @property
    def upstream_rules(self) -> UpstreamRules:
        """The API's address and the proxy's credentials."""
        return UpstreamRules(self.upstream, self.sslopt, self.token_file)

    @property
    def server_tls(self) -> ServerTLSFiles | None:
        """The files for TLS towards clients; None if clients connect without TLS."""
        if self.tls_cert is None:
            return None
        return ServerTLSFiles(self.tls_cert, self.tls_key or self.tls_cert, self.tls_client_ca)

    @property
    def file_rules(self) -> FileRules:
        """Which files are served to browsers."""
        mount = self.routes.prefix[-1:]
        return FileRules(self.ancestors, mount, self.web, self.console_page, self.novnc, self.xterm)

    @property
    def endpoint_rules(self) -> EndpointRules:
        """Which endpoints there are beside consoles."""
        return EndpointRules(self.routes, self.tickets, self.console_page, self.screenshots, self.grace)

    @property
    def url_rules(self) -> URLRules:
        """What URLs of consoles may contain."""
        return URLRules(self.routes, self.credentials, self.tickets, self.console_page)

    @property
    def picture_rules(self) -> PictureRules:
        """The settings for screenshots."""
        return PictureRules(self.path_template, self.dial_timeout, self.upstream_rules.way)


def config_from_env(environ: Mapping[str, str], flags: Mapping[str, str | None] | None = None) -> Config:
    """Read settings as the program ``wsproxy`` does, for programs that embed the proxy.

    A flag overrides a variable, and both override the file that ``WSPROXY_CONFIG`` names. The function reads
    nothing else. Blocks on the file system.

    :param environ: such as ``os.environ``. An empty variable counts as not set. A variable that is not a
        setting is ignored, unless its name begins with ``WSPROXY_``. Variables that Kubernetes injects for a
        Service called ``wsproxy-...`` are ignored, too; they are recognised by form and value.
    :param flags: values by the same names; None counts as not given.
    :raises ConfigError: lists every fault.
    """
    return settings_of_program(environ, flags or {})[0]


def settings_of_program(
    environ: Mapping[str, str], flags: Mapping[str, str | None], inherited: int | None = None
) -> tuple[Config, dict[str, str]]:
    """Read settings as :func:`config_from_env` does; return also the source of each given setting, by name.

    :param inherited: a descriptor that systemd passes to listen on, None if it passes none.
    """
    faults: list[str] = []
    layers = [of_flags(flags, faults), of_environment(environ, faults)]
    if named := layers[0].get("config") or layers[1].get("config"):
        content = collect(faults, lambda: read_config_file(named.name, str(named.value)))
        layers.append(of_file(str(named.value), content or {}, faults))
    if inherited is not None:
        faults += [
            f"{layer['listen'].name} is set, but systemd passes a socket to listen on; leave one out"
            for layer in layers
            if "listen" in layer
        ]
        layers.insert(0, {"listen": Given("listen", f"fd:{inherited}", "systemd")})
    choice = choose(layers, faults)
    return _config(choice, faults), choice.origins


def config_from_mapping(given: Mapping[str, object]) -> Config:
    """Read settings from a dict, such as one from a framework, or from a JSON or TOML file, and nowhere else.

    :param given: by the names of :class:`.Config`'s fields or of environment variables, each setting once. A
        text is parsed like a variable ("true", "5001", "a,b"). Other values have the field's type; a list may
        be any iterable of texts. None and an empty text count as not given. ``remote_url`` is optional in dev
        mode, and if ``KUBERNETES_SERVICE_HOST`` and ``_PORT`` are given.
    :raises ConfigError: lists every fault; a key that is not a setting is one.
    """
    faults: list[str] = []
    return _config(choose([of_mapping(given, faults)], faults), faults)


def _config(choice: Choice, faults: list[str]) -> Config:
    config = collect(faults, lambda: Config(**choice.values))
    if config is None or faults:
        raise ConfigError(faults)
    return config
