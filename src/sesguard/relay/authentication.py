"""
AUTH PLAIN and LOGIN with an app token (RFC 4954, RFC 4616), and what guessing costs.

The user name is the app's name and the password its token. A wrong token costs its caller time:
the reply is delayed, twice as long with each one, also over several connections; a caller is a uid,
and all whom the kernel cannot name are one caller. A right token clears the account.
"""

import base64
import binascii
from collections.abc import Callable
from typing import Final

from sesguard.core.secret import Secret
from sesguard.relay.commands import CommandFault, decode_plain
from sesguard.relay.model import Reason, Refusal

_ASK_USER: Final = b"334 VXNlcm5hbWU6\r\n"
_ASK_PASSWORD: Final = b"334 UGFzc3dvcmQ6\r\n"
_ASK: Final = b"334 \r\n"
_FIRST_DELAY_S: Final = 1.0
_LONGEST_DELAY_S: Final = 30.0
_FORGOTTEN_AFTER_S: Final = 900.0
_MOST_CALLERS: Final = 10_000

CANCELLED: Final = Refusal(Reason.SYNTAX, 501, "5.7.0", "the login was cancelled")
UNKNOWN_MECHANISM: Final = Refusal(Reason.SYNTAX, 504, "5.5.4", "only PLAIN and LOGIN are known")
_NOT_TEXT: Final = Refusal(Reason.SYNTAX, 501, "5.5.2", "user name or token are malformed")
_NOT_BASE64: Final = Refusal(Reason.SYNTAX, 501, "5.5.2", "that is not base64")


class Login:
    """
    One AUTH command and the lines after it.

    Args:
        mechanism: ``PLAIN`` or ``LOGIN``, in upper case.

    Raises:
        CommandFault: Another mechanism.
    """

    def __init__(self, mechanism: str) -> None:
        if mechanism not in ("PLAIN", "LOGIN"):
            raise CommandFault(UNKNOWN_MECHANISM)
        self._mechanism = mechanism
        self._user: str | None = None
        self.credentials: tuple[str, Secret] | None = None
        """User name and token, once both are there."""

    def begin(self, initial: bytes | None) -> bytes | None:
        """
        Take the initial response, if any.

        Returns:
            The challenge to send; None once the credentials are there.

        Raises:
            CommandFault: See `take`.
        """
        if initial is not None:
            return self.take(b"" if initial == b"=" else initial)
        return _ASK if self._mechanism == "PLAIN" else _ASK_USER

    def take(self, line: bytes) -> bytes | None:
        """
        Take a response of the client.

        Returns:
            The next challenge; None once the credentials are there.

        Raises:
            CommandFault: The client cancels, or sends what is no response.
        """
        if line == b"*":
            raise CommandFault(CANCELLED)
        try:
            response = base64.b64decode(line, validate=True)
        except (binascii.Error, ValueError):
            raise CommandFault(_NOT_BASE64) from None
        if self._mechanism == "PLAIN":
            self.credentials = decode_plain(response)
            return None
        text = response.decode("utf-8", "replace")
        if not text.isprintable():
            raise CommandFault(_NOT_TEXT)
        if self._user is None:
            self._user = text
            return _ASK_PASSWORD
        self.credentials = (self._user, Secret(text))
        return None


class GuessingCosts:
    """
    How long the reply to a wrong token is delayed.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._wrong: dict[int | None, tuple[int, float]] = {}

    def delay_s(self, uid: int | None) -> float:
        """Count a wrong token, and tell how long its reply is to wait."""
        now = self._clock()
        count, at = self._wrong.pop(uid, (0, now))
        count = 1 if now - at > _FORGOTTEN_AFTER_S else count + 1
        self._wrong[uid] = (count, now)
        if len(self._wrong) > _MOST_CALLERS:
            self._wrong.pop(next(iter(self._wrong)))
        return float(min(_FIRST_DELAY_S * 2 ** min(count - 1, 10), _LONGEST_DELAY_S))

    def clear(self, uid: int | None) -> None:
        """Forget the wrong tokens of a caller."""
        self._wrong.pop(uid, None)
