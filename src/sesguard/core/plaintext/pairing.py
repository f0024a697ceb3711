"""
From single settings to credentials, for formats that name user and password separately.

What a setting is, its value decides: an access key id is a user, the shape of an SES password is a
password, an SES host name is a host. The name of the setting says which of them belong together:
``MAIL_USERNAME`` and ``MAIL_PASSWORD`` have the scope ``MAIL``. Within a scope, as many users as
passwords go together one to one; otherwise a password takes the nearest user. A password whose
scope has no user takes one from the rest of the text.

A raw secret key has no shape of its own to speak of, so it is a password only when its name says so
and a setting whose name says that it is the user stands near it, in the same scope.

Limit: the first 50,000 settings of a text.
"""

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import islice
from typing import Final

from sesguard.core.plaintext.endpoint import endpoint_in, port_number
from sesguard.core.plaintext.interface import FoundCredential, judge, present
from sesguard.core.shapes import (
    SES_HOST,
    is_access_key_id,
    is_smtp_password,
    looks_like_secret_key,
)

_WORDS: Final = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_PASSWORD_WORDS: Final = frozenset({"PASS", "PASSWD", "PASSWORD", "PW", "PWD"})
_USER_WORDS: Final = frozenset({"USER", "USERNAME", "LOGIN"})
_OTHER_WORDS: Final = frozenset(
    {"ACCESS", "AUTH", "CLIENT", "HOST", "ID", "KEY", "MAILHUB", "NAME", "PORT", "SECRET", "SERVER"}
)
_ROLE_WORDS: Final = _PASSWORD_WORDS | _USER_WORDS | _OTHER_WORDS
_NEAR_LINES: Final = 10
_MAX_SETTINGS: Final = 50_000


class Role(Enum):
    """What a setting holds."""

    USER = auto()
    PASSWORD = auto()
    HOST = auto()
    PORT = auto()


@dataclass(frozen=True, slots=True)
class Setting:
    """One name and value of a configuration."""

    role: Role
    scope: str
    """Settings of one scope belong together."""
    value: str = field(repr=False)
    line: int
    says_user: bool
    """Whether the name says that this is a user."""


def setting(name: str, value: str, line: int, scope: str = "") -> Setting | None:
    """
    Make a setting of a name and its value, or None when the value is nothing of ours.

    Args:
        name: Key, variable or property.
        value: Without quotes and escapes.
        line: Line of the value.
        scope: What the name belongs to: an object, an account.
    """
    words = [word.upper() for word in _WORDS.split(name) if word]
    role = _role(words, value)
    if role is None:
        return None
    own = "_".join(word for word in words if word not in _ROLE_WORDS)
    return Setting(role, f"{scope} {own}", value, line, not _USER_WORDS.isdisjoint(words))


def pair(settings: Iterable[Setting], kind: str) -> Iterator[FoundCredential]:
    """
    Give the credentials that `settings` make up.

    Args:
        settings: In the order of the text.
        kind: For the findings.
    """
    groups = {role: _Group() for role in Role}
    for item in islice(settings, _MAX_SETTINGS):
        groups[item.role].add(item)
    passwords = groups[Role.PASSWORD]
    position: Counter[str] = Counter()
    for index, password in enumerate(passwords.all):
        scope = password.scope
        own = (position[scope], len(passwords.scopes[scope]), password.line)
        whole = (index, len(passwords.all), password.line)
        position[scope] += 1
        user = groups[Role.USER].partner(scope, own, whole)
        if user is not None and _belongs(user, password):
            host = groups[Role.HOST].partner(scope, own, whole)
            port = groups[Role.PORT].partner(host.scope if host else scope, own, None)
            yield from present(_finding(user, password, host, port, kind))


class _Group:
    """The settings of one role, by scope."""

    def __init__(self) -> None:
        self.all: list[Setting] = []
        self.scopes: defaultdict[str, list[Setting]] = defaultdict(list)

    def add(self, item: Setting) -> None:
        self.all.append(item)
        self.scopes[item.scope].append(item)

    def partner(
        self, scope: str, own: tuple[int, int, int], whole: tuple[int, int, int] | None
    ) -> Setting | None:
        """The one that belongs to a password, which is given as (index, count, line)."""
        if scope in self.scopes:
            return _choose(self.scopes[scope], own)
        return _choose(self.all, whole) if self.all and whole else None


def _belongs(user: Setting, password: Setting) -> bool:
    if is_smtp_password(password.value):
        return True
    near = abs(user.line - password.line) <= _NEAR_LINES
    return near and user.says_user and user.scope == password.scope


def _choose(candidates: list[Setting], place: tuple[int, int, int]) -> Setting:
    index, count, line = place
    if len(candidates) == count:
        return candidates[index]
    after = bisect_left(candidates, line, key=lambda item: item.line)
    near = candidates[max(0, after - 1) : after + 1]
    return min(near, key=lambda item: abs(item.line - line))


def _finding(
    user: Setting, password: Setting, host: Setting | None, port: Setting | None, kind: str
) -> FoundCredential | None:
    host_name, host_port = endpoint_in(host.value) if host else (None, None)
    return judge(
        user.value,
        password.value,
        line=password.line,
        kind=kind,
        host=host_name,
        port=host_port or port_number(port.value if port else None),
    )


def _role(words: list[str], value: str) -> Role | None:
    if is_access_key_id(value):
        return Role.USER
    if is_smtp_password(value):
        return Role.PASSWORD
    if looks_like_secret_key(value) and not _PASSWORD_WORDS.isdisjoint(words):
        return Role.PASSWORD
    if SES_HOST.search(value):
        return Role.HOST
    return Role.PORT if "PORT" in words and port_number(value) else None
