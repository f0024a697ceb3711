"""
The apps of the settings, ready to be matched with a user of this host.

An `AppRule` is one table ``[apps.NAME]``. Its conditions are users (names, numbers, patterns with
``*`` and ``?``) and groups; those that are given must all hold. A table with neither is for tokens
only.

A pattern is for people's accounts: it never matches root, system users (uid below 1000) or nobody
(65534, which is also every user that a container does not know). Exact names and numbers match
whomever they name. A table ``NAME:*`` is a pattern in that sense where it names no users, and it
never matches a user whose name has other characters than ``a-z 0-9 . _ -``: the name becomes part
of an app's name and, for ``{user}``, of addresses.

Raises: SettingsError for a pattern of addresses that means nothing.
"""

import fnmatch
import grp
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from sesguard.config.schema import AppSettings, Settings
from sesguard.errors import SettingsError
from sesguard.relay.model import App, DeliveryMode, PolicyMode, Rates
from sesguard.system.privileges import find_user

FIRST_USER: Final = 1000
"""Uids below are the system's."""
NOBODY: Final = 65534

_EVERY: Final = ":*"
_FIELD: Final = "{user}"
_SAFE_NAME: Final = re.compile(r"[a-z0-9._-]+")
_ADDRESS: Final = re.compile(r'\*|(?:[^@\s<>"]+|"[^"]+")@[^@\s*<>"]+')


@dataclass(frozen=True, slots=True)
class Account:
    """A user, as far as conditions look at it."""

    uid: int
    name: str | None
    """None: the uid has no name."""
    gids: frozenset[int]


@dataclass(frozen=True, slots=True)
class AppRule:
    """One table ``[apps.NAME]``."""

    name: str
    app: App
    """What it yields; of a table ``NAME:*`` the pattern, with ``{user}`` in it."""
    require_token: bool = False
    names: frozenset[str] = frozenset()
    """Exact user names."""
    uids: frozenset[int] = frozenset()
    patterns: tuple[re.Pattern[str], ...] = ()
    groups: tuple[str, ...] = ()
    """Names or numbers."""

    @property
    def is_per_user(self) -> bool:
        """Whether it is one app for each user."""
        return self.name.endswith(_EVERY)

    @property
    def has_users(self) -> bool:
        """Whether there is a condition on the user."""
        return bool(self.names or self.uids or self.patterns)

    @property
    def is_token_only(self) -> bool:
        """Whether no caller is the app without a token."""
        return not self.has_users and not self.groups

    def app_of(self, account: Account) -> App | None:
        """The app that a process of `account` is by this rule, if the conditions hold."""
        if self.is_token_only or not self._is_user(account) or not self._is_in_group(account):
            return None
        return self.instance(account.name or "") if self.is_per_user else self.app

    def instance(self, user: str) -> App | None:
        """The app of one user of a table ``NAME:*``; None: the name is not fit for one."""
        if not _SAFE_NAME.fullmatch(user):
            return None
        name = self.name.removesuffix("*") + user
        senders = tuple(sender.replace(_FIELD, user) for sender in self.app.senders)
        return replace(self.app, name=name, senders=senders)

    def named(self, name: str) -> App | None:
        """The app called `name`, if it is one of this rule; the user need not exist."""
        if not self.is_per_user:
            return self.app if name == self.name else None
        prefix = self.name.removesuffix("*")
        return self.instance(name.removeprefix(prefix)) if name.startswith(prefix) else None

    def _is_user(self, account: Account) -> bool:
        if account.uid in self.uids or account.name in self.names:
            return True
        if not self.has_users:
            return not self.is_per_user or _is_person(account)
        if account.name is None or not _is_person(account):
            return False
        return any(pattern.fullmatch(account.name) for pattern in self.patterns)

    def _is_in_group(self, account: Account) -> bool:
        return not self.groups or any(_gid_of(group) in account.gids for group in self.groups)


def app_rules(settings: Settings) -> tuple[AppRule, ...]:
    """
    The apps of the settings.

    Raises:
        SettingsError: A pattern of addresses means nothing; see the module docstring.
    """
    return tuple(_rule(settings.path, name, app) for name, app in settings.apps.items())


def app_named(rules: tuple[AppRule, ...], name: str) -> tuple[AppRule, App] | None:
    """The app called `name` and the rule that yields it."""
    for rule in rules:
        app = rule.named(name)
        if app is not None:
            return rule, app
    return None


def account_of(uid: int) -> Account:
    """
    The account of a uid, with all groups of its user.

    The name service of the host is asked, which may take its time where that is on the network.
    """
    user = find_user(str(uid))
    if user is None:
        return Account(uid, None, frozenset())
    return Account(uid, user.name, frozenset(os.getgrouplist(user.name, user.gid)))


def _rule(path: Path | None, name: str, table: AppSettings) -> AppRule:
    _check_addresses(path, name, table)
    exact = [user for user in table.users if not _is_pattern(user)]
    patterns = [user for user in table.users if _is_pattern(user)]
    return AppRule(
        name,
        _app(name, table),
        table.require_token,
        frozenset(user for user in exact if not user.isdecimal()),
        frozenset(int(user) for user in exact if user.isdecimal()),
        tuple(re.compile(fnmatch.translate(pattern)) for pattern in patterns),
        table.groups,
    )


def _app(name: str, table: AppSettings) -> App:
    return App(
        name,
        table.senders,
        table.allowed_recipients,
        table.denied_recipients,
        table.max_recipients,
        table.max_message_bytes,
        Rates(table.per_minute, table.per_hour, table.per_day),
        PolicyMode(table.policy),
        DeliveryMode(table.delivery),
        table.credential,
        table.configuration_set,
    )


def _check_addresses(path: Path | None, name: str, table: AppSettings) -> None:
    keys = ("senders", "allowed_recipients", "denied_recipients")
    for key in keys:
        for pattern in getattr(table, key):
            local = pattern.rpartition("@")[0]
            replaced = _FIELD in pattern and not (name.endswith(_EVERY) and key == "senders")
            if not _ADDRESS.fullmatch(pattern) or ("*" in local and local != "*") or replaced:
                raise SettingsError(
                    "{path}: apps.{app}.{key}: {pattern!r} is no address and not *@domain",
                    hint="{{user}} stands for the user's name in the senders of a table NAME:*",
                    path=path or "settings",
                    app=name,
                    key=key,
                    pattern=pattern[:128],
                )


def _is_pattern(user: str) -> bool:
    return "*" in user or "?" in user


def _is_person(account: Account) -> bool:
    return account.uid >= FIRST_USER and account.uid != NOBODY


def _gid_of(group: str) -> int | None:
    if group.isascii() and group.isdecimal():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except (KeyError, ValueError):
        return None
