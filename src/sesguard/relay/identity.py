"""
Which app is calling.

`caller_of` asks the kernel who made the other end of a connection; nothing that the client says
takes part. `Identities` finds the app that this caller is, or that a token names.

Promises
    Two users are never taken for each other, also when a client closes early and another one gets
    its port: after the kernel was asked for the owner of the client's address, our own socket must
    still be connected. As long as it is, nobody else can have that pair of addresses.
    Without a token a caller is an app when exactly one rule fits it. A token names exactly its app,
    and the app's users and groups must hold as well where the kernel told the caller.
    A suspended app is told so at its next message (`AppRegistry`).
    What the host's name service says about a user is remembered for `REMEMBERED_S`.

Limits: a caller on a TCP address of this host that is not loopback is unknown, as one from another
host is. Programs that one user runs are one caller: PHP sites under one uid need tokens.

A session that has logged in stays logged in when its token is revoked; suspend the app to cut it
off. A container that shares a Unix socket of the host, and not its users, calls as ``nobody``.

Known fault: the first message of a user waits for the host's name service, and so does everybody
else; with users on the network, run its cache (nscd, sssd).
"""

import os
import socket
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

from sesguard.core.loopback import is_loopback
from sesguard.core.secret import Secret
from sesguard.errors import SystemFault
from sesguard.relay.apps import Account, AppRule, account_of, app_named
from sesguard.relay.model import UNKNOWN, App, Caller, Reason, Refusal
from sesguard.relay.policy import shown
from sesguard.relay.registry import AppRegistry
from sesguard.system.peers import peer_of
from sesguard.system.privileges import find_user
from sesguard.system.sock_diag import SockDiag

REMEMBERED_S: Final = 60.0
"""Time after which the name service is asked anew about a user."""

_MAX_REMEMBERED: Final = 4096
_CONNECTED: Final = frozenset({1, 8})
"""States of our end: ESTABLISHED, and CLOSE_WAIT when the client has sent all that it will."""
_FAILED: Final = Refusal(Reason.BAD_TOKEN, 535, "5.7.8", "authentication failed")
_UNREADABLE: Final = Refusal(
    Reason.BUSY, 451, "4.3.0", "the relay cannot read its list of apps; try again later"
)

Answer = App | Refusal


def caller_of(connection: socket.socket, diag: SockDiag | None = None) -> Caller | None:
    """
    Who is at the other end of a connection that was just accepted.

    Args:
        connection: A Unix or TCP socket, or what asyncio hands out for one.
        diag: What asks the kernel. Default: one for this process.

    Returns:
        `UNKNOWN` for a TCP connection that is not over loopback. None: the client is gone, or the
        kernel does not say; drop the connection.
    """
    try:
        if connection.family == socket.AF_UNIX:
            peer = peer_of(connection)
            return Caller(peer.uid, peer.gid, peer.pid)
        remote, local = connection.getpeername(), connection.getsockname()
        if not is_loopback(remote[0]):
            return UNKNOWN
        owner = (diag or _diag(os.getpid())).owner(remote[:2], local[:2])
        state = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    except (OSError, SystemFault):
        return None
    return None if owner is None or state not in _CONNECTED else Caller(owner.uid)


class Identities:
    """
    Finds the app of a caller; see the module docstring.

    Args:
        rules: The apps of the settings.
        registry: Tokens and suspensions.
        clock: Seconds, monotonic.
        accounts: Tells the account of a uid.
    """

    def __init__(
        self,
        rules: Sequence[AppRule],
        registry: AppRegistry,
        clock: Callable[[], float] = time.monotonic,
        accounts: Callable[[int], Account] = account_of,
    ) -> None:
        self._rules = tuple(rules)
        self._registry = registry
        self._clock = clock
        self._ask_account = accounts
        self._answers: dict[tuple[int | None, int | None, str | None], tuple[float, Answer]] = {}
        self._accounts: dict[int, tuple[float, Account]] = {}

    def update(self, rules: Sequence[AppRule]) -> None:
        """Use other rules from the next message on."""
        self._rules = tuple(rules)
        self._answers.clear()

    def app_for(self, caller: Caller, login: str | None) -> Answer:
        """
        The app that is calling, or why there is none that may send now.

        Args:
            caller: As `caller_of` told.
            login: As `login` told in this session; None: it did not log in.
        """
        key = (caller.uid, caller.gid, login)
        known = self._answers.get(key)
        if known is None or known[0] <= self._clock():
            if len(self._answers) >= _MAX_REMEMBERED:
                self._answers.clear()
            known = self._answers[key] = self._clock() + REMEMBERED_S, self._find(caller, login)
        answer = known[1]
        if isinstance(answer, Refusal):
            return answer
        try:
            return _suspended(answer) if self._registry.suspended(answer.name) else answer
        except SystemFault:
            return _UNREADABLE

    def login(self, caller: Caller, username: str, token: Secret) -> str | Refusal:
        """
        Check a token.

        Args:
            caller: As `caller_of` told.
            username: Name of an app, as the client gave it.
            token: What it gave for a password.

        Returns:
            The name of the app, for `app_for`.
        """
        try:
            is_right = self._registry.verify(username, token)
        except SystemFault:
            return Refusal(Reason.BUSY, 454, "4.7.0", _UNREADABLE.text)
        if not is_right or isinstance(self._find(caller, username), Refusal):
            return _FAILED
        return username

    def _find(self, caller: Caller, login: str | None) -> Answer:
        if login is not None:
            return self._find_login(caller, login)
        if caller.uid is None:
            text = "log in with the token of an app"
            return Refusal(Reason.UNKNOWN_CALLER, 530, "5.7.0", text)
        account = self._account(caller.uid, caller.gid)
        fitting = [app for rule in self._rules if (app := _by_caller(rule, account)) is not None]
        if len(fitting) == 1:
            return fitting[0]
        text = f"no app is set up for uid {caller.uid}"
        if fitting:
            names = ", ".join(app.name for app in fitting)
            text = f"uid {caller.uid} may be {names}: log in with a token"
        return Refusal(Reason.UNKNOWN_CALLER, 530, "5.7.0", text)

    def _find_login(self, caller: Caller, login: str) -> Answer:
        found = app_named(self._rules, login)
        if found is None:
            text = f"there is no app {shown(login)}"
            return Refusal(Reason.UNKNOWN_CALLER, 530, "5.7.0", text)
        rule, app = found
        if rule.is_token_only:
            return app
        account = self._account_of_login(caller, rule, app)
        allowed = rule.app_of(account) if account is not None else None
        if (account is None and not rule.is_per_user) or (allowed and allowed.name == app.name):
            return app
        text = f"uid {caller.uid} may not be app {app.name}"
        return Refusal(Reason.UNKNOWN_CALLER, 530, "5.7.0", text)

    def _account_of_login(self, caller: Caller, rule: AppRule, app: App) -> Account | None:
        """The caller's account; of an unknown caller of a table ``NAME:*`` that of its user."""
        if caller.uid is not None:
            return self._account(caller.uid, caller.gid)
        user = find_user(app.name.partition(":")[2]) if rule.is_per_user else None
        return self._account(user.uid, None) if user is not None else None

    def _account(self, uid: int, gid: int | None) -> Account:
        known = self._accounts.get(uid)
        if known is None or known[0] <= self._clock():
            if len(self._accounts) >= _MAX_REMEMBERED:
                self._accounts.clear()
            known = self._accounts[uid] = self._clock() + REMEMBERED_S, self._ask_account(uid)
        account = known[1]
        if gid is None or gid in account.gids:
            return account
        return Account(uid, account.name, account.gids | {gid})


def _by_caller(rule: AppRule, account: Account) -> App | None:
    return None if rule.require_token else rule.app_of(account)


def _suspended(app: App) -> Refusal:
    text = f"app {app.name} is suspended; its mail stays with you for now"
    return Refusal(Reason.SUSPENDED, 450, "4.7.1", text)


@lru_cache(maxsize=1)
def _diag(_pid: int) -> SockDiag:
    """One for each process: a child that was forked must not read its parent's answers."""
    return SockDiag()
