"""
What is known about apps beside the settings: their tokens, and which are suspended.

It is one small JSON file. The command line (root) replaces it as a whole, under a lock; the relay
looks at it with one stat(2) each time it is asked and reads it again when it was changed, so that
a suspension or a new token counts from the next message on and nobody has to be told.

Promises
    A token is 256 random bits and only its SHA-256 is kept: whoever reads the file cannot log in.
    It reads ``sgt_ID_SECRET``, so that scanners know it; the id is no secret and is what lists and
    logs show. Verifying takes the same steps for every app, known or not.
    A missing file is an empty one. A damaged one is reported through `on_problem`, once for each
    state of it, and what was read last counts on; it is tried again when the file changes and every
    `RETRY_S` seconds. Where nothing was ever read, `suspended` and `verify` raise: an app that may
    be suspended must not send, but its mail is not refused either.

Raises: SystemFault where the file cannot be read, or was damaged; UsageError for a token id or an
app that is not there.
"""

import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from sesguard.core.secret import Secret
from sesguard.errors import Error, SystemFault, UsageError
from sesguard.system.files import read_if_exists, remove_stale_temporaries, write_atomic
from sesguard.system.locks import exclusive_lock

REGISTRY_FILE: Final = "apps.json"
"""Its name in the state directory."""
RETRY_S: Final = 5.0
TOKEN: Final = re.compile(r"sgt_[0-9a-f]{8}_[A-Za-z0-9_-]{43}")

_FORMAT: Final = 1
_MAX_BYTES: Final = 16 * 1024 * 1024
_MODE: Final = 0o640
_LOCK_TIMEOUT_S: Final = 10.0
_NO_DIGEST: Final = bytes(32)


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A token, without its secret."""

    id: str
    label: str
    created: str
    """UTC, ISO 8601."""
    sha256: str
    """Of the whole text of the token, in hexadecimal."""


class Suspension(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Why and since when an app sends nothing."""

    reason: str
    since: str
    """UTC, ISO 8601."""


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is known about one app."""

    tokens: tuple[Token, ...] = ()
    suspended: Suspension | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    version: int
    apps: dict[str, Entry]


_Stamp = tuple[int, int, int, int]


class _Contents:
    """What was read, ready to be asked."""

    __slots__ = ("digests", "entries", "suspended")

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self.entries = entries
        self.suspended = frozenset(
            name for name, entry in entries.items() if entry.suspended is not None
        )
        self.digests = {
            name: [bytes.fromhex(token.sha256) for token in entry.tokens]
            for name, entry in entries.items()
        }


def ignore(_problem: Error) -> None:
    """Report a problem to nobody."""


class AppRegistry:
    """
    Reads and changes the registry; see the module docstring.

    Args:
        path: The file; it need not exist.
        on_problem: Told of each problem once. It must not raise.
        group: Group that may read the file; None: the process's own.
    """

    def __init__(
        self,
        path: Path,
        on_problem: Callable[[Error], None] = ignore,
        *,
        group: int | None = None,
    ) -> None:
        self._path = path
        self._text_path = str(path)
        self._on_problem = on_problem
        self._group = group
        self._stamp: _Stamp | None = None
        self._contents: _Contents | None = None
        self._problem: Error | None = None
        self._retry_at = 0.0

    # For the relay.

    def suspended(self, name: str) -> bool:
        """
        Whether an app sends nothing for now, itself or (``NAME:*``) with all of its table.

        Raises:
            SystemFault: The registry cannot be read and never could.
        """
        suspended = self._current().suspended
        return bool(suspended) and _is_named(suspended, name)

    def verify(self, name: str, token: Secret) -> bool:
        """
        Whether `token` is one of the app's.

        Raises:
            SystemFault: The registry cannot be read and never could.
        """
        text = token.reveal()
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        found = False
        for known in self._current().digests.get(name) or (_NO_DIGEST,):
            # No early end: the time must not tell how many tokens there are before the right one.
            found |= hmac.compare_digest(known, digest)
        return found

    # For the command line.

    def entries(self) -> Mapping[str, Entry]:
        """
        Everything that is in the file.

        Raises:
            SystemFault: It cannot be read, or is damaged.
        """
        return self._read()

    def add_token(self, name: str, label: str = "") -> Secret:
        """
        Make a token for an app; it cannot be shown again.

        Raises:
            SystemFault: It was not kept.
        """
        token_id = secrets.token_hex(4)
        text = f"sgt_{token_id}_{secrets.token_urlsafe(32)}"
        digest = hashlib.sha256(text.encode("ascii")).hexdigest()
        token = Token(id=token_id, label=label, created=_utc_now(), sha256=digest)
        self._change(
            name, lambda entry: msgspec.structs.replace(entry, tokens=(*entry.tokens, token))
        )
        return Secret(text)

    def revoke(self, name: str, token_id: str | None) -> tuple[str, ...]:
        """
        Make tokens of an app invalid.

        Args:
            name: The app.
            token_id: Which; None: all.

        Returns:
            The ids of those that were.

        Raises:
            UsageError: The app has no such token.
            SystemFault: Nothing was changed.
        """
        gone: list[str] = []

        def without(entry: Entry) -> Entry:
            gone.extend(token.id for token in entry.tokens if token_id in (None, token.id))
            if token_id is not None and not gone:
                raise UsageError(
                    "app {name} has no token {id}",
                    hint="run: sesguard app list",
                    name=name,
                    id=token_id,
                )
            left = tuple(token for token in entry.tokens if token.id not in gone)
            return msgspec.structs.replace(entry, tokens=left)

        self._change(name, without)
        return tuple(gone)

    def suspend(self, name: str, reason: str = "") -> None:
        """
        Let an app (or ``NAME:*``, all of a table) send nothing until it is resumed.

        Raises:
            SystemFault: Nothing was changed.
        """
        suspension = Suspension(reason=reason, since=_utc_now())
        self._change(name, lambda entry: msgspec.structs.replace(entry, suspended=suspension))

    def resume(self, name: str) -> bool:
        """
        Let an app send again; False: it was not suspended by that name.

        Raises:
            SystemFault: Nothing was changed.
        """
        was: list[bool] = []

        def resumed(entry: Entry) -> Entry:
            was.append(entry.suspended is not None)
            return msgspec.structs.replace(entry, suspended=None)

        self._change(name, resumed)
        return was[0]

    # Inside.

    def _current(self) -> _Contents:
        try:
            status = os.stat(self._text_path)
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size, status.st_ctime_ns)
        except FileNotFoundError:
            stamp = None
        except OSError:
            stamp = (0, 0, 0, 0)
        if stamp != self._stamp or self._is_overdue():
            self._refresh(stamp)
        if self._contents is None:
            assert self._problem is not None
            # The same exception is raised many times; its traceback would grow each time.
            raise self._problem.with_traceback(None)
        return self._contents

    def _is_overdue(self) -> bool:
        if self._problem is None:
            return self._contents is None
        return time.monotonic() >= self._retry_at

    def _refresh(self, stamp: _Stamp | None) -> None:
        # The stamp was taken first: a file that is replaced meanwhile is read once more next time.
        try:
            self._contents, self._problem = _Contents(self._read()), None
        except SystemFault as problem:
            if self._problem is None or stamp != self._stamp:
                self._on_problem(problem)
            self._problem = problem
            self._retry_at = time.monotonic() + RETRY_S
        self._stamp = stamp

    def _read(self) -> dict[str, Entry]:
        state = read_if_exists(self._path, max_bytes=_MAX_BYTES)
        if state is None:
            return {}
        try:
            found = msgspec.json.decode(state.content, type=_File)
            if found.version != _FORMAT or not all(map(_is_whole, found.apps.values())):
                raise ValueError
        except (ValueError, msgspec.MsgspecError):
            raise SystemFault(
                "{path} is damaged, or was made by a newer release",
                hint="put a copy back, or remove it: then no app has tokens or is suspended",
                path=self._path,
            ) from None
        return found.apps

    def _change(self, name: str, change: Callable[[Entry], Entry]) -> None:
        lock = self._path.with_name(f"{self._path.name}.lock")
        with exclusive_lock(lock, timeout_s=_LOCK_TIMEOUT_S):
            remove_stale_temporaries(self._path.parent, self._path.name)
            entries = self._read()
            entries[name] = change(entries.get(name, Entry()))
            if entries[name] == Entry():
                del entries[name]
            content = msgspec.json.encode(_File(version=_FORMAT, apps=entries))
            text = msgspec.json.format(content, indent=1) + b"\n"
            write_atomic(self._path, text, mode=_MODE, gid=self._group)


def _utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _is_named(suspended: frozenset[str], name: str) -> bool:
    base, colon, _ = name.partition(":")
    return name in suspended or (bool(colon) and f"{base}:*" in suspended)


def _is_whole(entry: Entry) -> bool:
    return all(re.fullmatch("[0-9a-f]{64}", token.sha256) for token in entry.tokens)
