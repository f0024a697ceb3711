"""
What relay mode needs of the settings: an address of the relay, and an app for Exim's user.

Exim is told apart by the uid of its deliveries, so it needs no password for the relay either.

Raises `SettingsError` with the table that is missing.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from sesguard.config.schema import AppSettings, Settings
from sesguard.errors import SettingsError
from sesguard.system.privileges import User, group_name

_ENDPOINT: Final = re.compile(r"\[?(?P<address>[0-9A-Fa-f.:]+?)\]?:(?P<port>[0-9]+)")


@dataclass(frozen=True, slots=True)
class RelayEndpoint:
    """An address that the relay listens on."""

    address: str
    port: int

    @property
    def hosts(self) -> str:
        """The value of Exim's option ``hosts``, in which a colon separates items."""
        if ":" in self.address:
            return f"<; [{self.address}]:{self.port}"
        return f"{self.address}::{self.port}"


def relay_endpoint(settings: Settings) -> RelayEndpoint:
    """
    The first loopback address of ``relay.listen``.

    Raises:
        SettingsError: There is none.
    """
    for text in settings.relay.listen:
        match = _ENDPOINT.fullmatch(text)
        if match and _is_loopback(match["address"]):
            return RelayEndpoint(match["address"], int(match["port"]))
    raise SettingsError(
        "relay.listen names no loopback address that Exim could send to",
        hint='add "127.0.0.1:2525" to relay.listen',
    )


def require_app(settings: Settings, user: User) -> str:
    """
    The name of the app that Exim's deliveries are.

    Raises:
        SettingsError: No table of the settings is for `user`.
    """
    for name, app in settings.apps.items():
        if not app.require_token and _is_for(app, user):
            return name
    raise SettingsError(
        "no app of the settings is for Exim's user {user}, so the relay would refuse its mail",
        hint="add to the settings:\n"
        "[apps.exim]\n"
        'users = ["{user}"]\n'
        'senders = ["*@example.com"]  # the domains that Exim sends for\n'
        'delivery = "pass"',
        user=user.name,
    )


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _is_for(app: AppSettings, user: User) -> bool:
    """Patterns do not count: they are for people, and Exim's user is one of the system's."""
    named = not {user.name, str(user.uid)}.isdisjoint(app.users)
    grouped = not {group_name(user.gid), str(user.gid)}.isdisjoint(app.groups)
    if app.users and app.groups:
        return named and grouped
    return named or grouped
