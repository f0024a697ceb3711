"""
What relay mode needs of the settings: an address of the relay, and an app for Exim's user.

Exim is told apart by the uid of its deliveries, so it needs no password for the relay either.

Raises `SettingsError` with the table that is missing.
"""

from dataclasses import dataclass

from sesguard.config.listen import parse_listen_address
from sesguard.config.schema import AppSettings, Settings
from sesguard.errors import SettingsError
from sesguard.system.privileges import User, group_name


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
        SettingsError: There is none, or one before it is no address.
    """
    for text in settings.relay.listen:
        each = parse_listen_address(text)
        if each.is_loopback:
            return RelayEndpoint(each.address, each.port)
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


def _is_for(app: AppSettings, user: User) -> bool:
    """Patterns do not count: they are for people, and Exim's user is one of the system's."""
    named = not {user.name, str(user.uid)}.isdisjoint(app.users)
    grouped = not {group_name(user.gid), str(user.gid)}.isdisjoint(app.groups)
    if app.users and app.groups:
        return named and grouped
    return named or grouped
