"""
Recipients that the upstream refused a short while ago.

SMTP has one reply for a message with many recipients, so a message of which one recipient is
refused is not sent and is deferred; when the client sends it again, the refused recipient hears its
refusal at its own RCPT, and the others get the mail. This memory makes that possible.
"""

from collections.abc import Callable, Mapping
from typing import Final

from sesguard.relay.model import Reason, Refusal
from sesguard.relay.replies import is_kept
from sesguard.upstream.replies import Reply, text_for_apps

REMEMBERED_S: Final = 3600.0
_MOST: Final = 10_000


class RefusedRecipients:
    """
    Remembers refusals for `REMEMBERED_S`.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[tuple[str, str, str], tuple[float, Refusal]] = {}

    def remember(self, app: str, sender: str, refused: Mapping[str, Reply]) -> None:
        """Take note of the recipients that an app's message did not go to, for good."""
        for recipient, reply in refused.items():
            if is_kept(reply.outcome):
                continue
            text = text_for_apps(reply)
            refusal = Refusal(Reason.UPSTREAM, max(reply.code, 550), "5.1.0", text)
            self._known.pop((app, sender, recipient), None)
            self._known[app, sender, recipient] = (self._clock() + REMEMBERED_S, refusal)
            if len(self._known) > _MOST:
                self._known.pop(next(iter(self._known)))

    def find(self, app: str, sender: str, recipient: str) -> Refusal | None:
        """The refusal of a recipient, or None."""
        if not self._known:
            return None
        until, refusal = self._known.get((app, sender, recipient), (0.0, None))
        return refusal if self._clock() < until else None
