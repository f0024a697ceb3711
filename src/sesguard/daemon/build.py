"""Settings to objects: the only place where the parts of the daemon are put together."""

from collections.abc import Sequence
from typing import Final

from sesguard.config.schema import CredentialSettings, LookupSettings, Settings
from sesguard.core.endpoints import Endpoint
from sesguard.core.interfaces import CredentialSource
from sesguard.core.routing import RoutingRule
from sesguard.daemon.log import JsonLog
from sesguard.errors import Error, SettingsError
from sesguard.lookup.desk import LookupDesk
from sesguard.lookup.exim_protocol import EximDialogue
from sesguard.lookup.model import EventSink
from sesguard.lookup.postfix_protocol import PostfixDialogue
from sesguard.lookup.server import Limits
from sesguard.system.privileges import User, find_user
from sesguard.upstream.lane import Destination
from sesguard.vault.opening import open_vault
from sesguard.vault.source import VaultCredentialSource

EXIM: Final = "exim"
POSTFIX: Final = "postfix"


def open_source(settings: Settings, log: JsonLog) -> VaultCredentialSource:
    """
    Open the vault and its key, and read the vault once. Needs root where the key does.

    Raises:
        VaultError: There is no vault, no key, or no generation of the vault that opens.
    """

    def report(problem: Error) -> None:
        log.write("vault.problem", detail=problem, hint=problem.hint)

    source = VaultCredentialSource(open_vault(settings), report)
    source.contents()
    return source


def routing_rules(settings: Settings) -> tuple[RoutingRule, ...]:
    """One rule for each credential of the settings."""
    return tuple(
        RoutingRule(
            credential_id=name,
            host=credential.smtp_host,
            port=credential.port,
            regions=credential.regions,
            sender_domains=credential.sender_domains,
        )
        for name, credential in settings.credentials.items()
    )


def destinations(settings: Settings) -> tuple[Destination, ...]:
    """Where the mail of each credential goes, with the hosts to fall back to."""
    rules = routing_rules(settings)
    return tuple(
        Destination(
            rule,
            (Endpoint(rule.host, rule.port), *_fallbacks(settings.credentials[rule.credential_id])),
            settings.credentials[rule.credential_id].ca_file,
        )
        for rule in rules
    )


def _fallbacks(credential: CredentialSettings) -> list[Endpoint]:
    found = []
    for text in credential.fallback_hosts:
        host, colon, port = text.partition(":")
        if not host or (colon and not (port.isascii() and port.isdecimal())):
            raise SettingsError(
                "fallback_hosts: {text!r} is neither HOST nor HOST:PORT",
                hint="use a name such as email-smtp.us-west-2.amazonaws.com",
                text=text,
            )
        found.append(Endpoint(host, int(port) if colon else credential.port))
    return found


def lookup_settings(settings: Settings) -> dict[str, LookupSettings]:
    """The settings of each lookup protocol."""
    return {EXIM: settings.lookup.exim, POSTFIX: settings.lookup.postfix}


def allowed_users(lookup: LookupSettings) -> tuple[User, ...]:
    """The users of the host that may ask: none where the protocol is not enabled."""
    found = [find_user(name) for name in lookup.users] if lookup.enabled else []
    return tuple(user for user in found if user is not None)


def limits_of(lookup: LookupSettings) -> Limits:
    """The limits of a lookup server."""
    return Limits(
        frozenset(user.uid for user in allowed_users(lookup)),
        lookup.max_connections,
        lookup.timeout_s,
    )


def make_desk(
    protocol: str,
    source: CredentialSource,
    rules: Sequence[RoutingRule],
    lookup: LookupSettings,
    sink: EventSink,
) -> LookupDesk:
    """The desk of one protocol."""
    return LookupDesk(protocol, source, rules, require_tls=lookup.require_tls, sink=sink)


def make_dialogue(desk: LookupDesk) -> EximDialogue | PostfixDialogue:
    """The dialogue that goes with a desk."""
    return EximDialogue(desk) if desk.protocol == EXIM else PostfixDialogue(desk)
