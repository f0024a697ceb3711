"""
What an app may send, decided from what the client said alone.

Patterns are addresses, ``*@domain`` for every address of just that domain (never of its sub
domains), and ``*`` for every address. Addresses compare without regard to ASCII case, also left of
the ``@``: RFC 5321 lets a host tell cases apart there, but hosts that receive mail do not, so that
a rule against ``boss@`` must hold for ``Boss@``. (IAM's condition keys for SES do tell them apart;
a fence in IAM is a second rule, not this one.) A local part is compared without its quoting,
and one final dot of a domain makes no difference. Nothing else is decoded or folded, so that
the Kelvin sign is not a ``k``; only for denied recipients a domain that is not ASCII is also
compared as the DNS would be asked for it (IDNA), or it would pass by under its other spelling.

Every function is pure and gives a `Refusal` or None. The first rule that is broken is named.
"""

import re
from collections.abc import Iterable
from typing import Final

from sesguard.relay.model import App, Reason, Refusal

_UPPER: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
_QUOTING: Final = re.compile(r'\\(.)|"', re.DOTALL)
_MAX_SHOWN: Final = 100
_MAX_KEPT: Final = 4096


class Pattern:
    """
    Addresses and ``*@domain``, ready to be asked.

    Args:
        patterns: As the settings have them.
    """

    __slots__ = ("_addresses", "_all", "_domains")

    def __init__(self, patterns: Iterable[str]) -> None:
        split = [(split_address(pattern), pattern) for pattern in patterns]
        self._all = any(pattern == "*" for _, pattern in split)
        self._domains = frozenset(domain for (local, domain), _ in split if local == "*")
        self._addresses = frozenset(parts for parts, _ in split if parts[0] != "*")

    def matches(self, local: str, domain: str) -> bool:
        """Whether an address, as `split_address` gives it, is one of them."""
        return self._all or domain in self._domains or (local, domain) in self._addresses

    def __bool__(self) -> bool:
        return self._all or bool(self._domains) or bool(self._addresses)


class Policy:
    """
    The rules of one app, ready to be asked.

    Args:
        app: Whose they are.
    """

    __slots__ = ("allowed", "app", "denied", "senders")

    def __init__(self, app: App) -> None:
        self.app = app
        self.senders = Pattern(app.senders)
        self.allowed = Pattern(app.allowed_recipients)
        self.denied = Pattern((*app.denied_recipients, *_dns_forms(app.denied_recipients)))


_kept: Final[dict[str, Policy]] = {}


def policy_of(app: App) -> Policy:
    """The rules of `app`; made once for each app."""
    policy = _kept.get(app.name)
    if policy is None or (policy.app is not app and policy.app != app):
        if len(_kept) >= _MAX_KEPT:
            _kept.clear()
        policy = _kept[app.name] = Policy(app)
    return policy


def judge_sender(app: App, address: str) -> Refusal | None:
    """
    Whether the app may use an envelope sender.

    Args:
        app: Who sends.
        address: Without angle brackets. Empty (a bounce) is allowed to whom may send at all; the
            From of its header is judged like any other.
    """
    senders = policy_of(app).senders
    if senders.matches(*split_address(address)) if address else senders:
        return None
    if not address:
        text = f"app {app.name} may not send: it has no senders"
    else:
        text = f"app {app.name} may not send as <{shown(address)}>"
    return Refusal(Reason.SENDER, 553, "5.7.1", text)


def judge_authors(app: App, authors: Iterable[str]) -> Refusal | None:
    """Whether the app may use every mailbox of From, Sender and their like; none is too few."""
    senders = policy_of(app).senders
    author = None
    for author in authors:
        if not senders.matches(*split_address(author)):
            text = f"app {app.name} may not send mail from <{shown(author)}>"
            return Refusal(Reason.AUTHOR, 550, "5.7.1", text)
    if author is None:
        return Refusal(Reason.AUTHOR, 550, "5.7.1", "the message does not say whom it is from")
    return None


def judge_recipient(app: App, address: str, count: int) -> Refusal | None:
    """
    Whether the app may write to a recipient.

    Args:
        app: Who sends.
        address: Without angle brackets.
        count: Recipients of the message with this one.
    """
    if count > app.max_recipients:
        text = f"app {app.name} may write to {app.max_recipients} recipients at a time"
        return Refusal(Reason.RECIPIENTS, 452, "4.5.3", text)
    policy = policy_of(app)
    if not policy.denied and not policy.allowed:
        return None
    local, domain = split_address(address)
    denied = policy.denied.matches(local, domain) or (
        not domain.isascii() and policy.denied.matches(local, _dns_form(domain))
    )
    if denied or (policy.allowed and not policy.allowed.matches(local, domain)):
        text = f"app {app.name} may not write to <{shown(address)}>"
        return Refusal(Reason.RECIPIENT, 550, "5.7.1", text)
    return None


def judge_size(app: App, size: int) -> Refusal | None:
    """Whether a message of `size` octets is not too large."""
    if size <= app.max_message_bytes:
        return None
    text = f"app {app.name} may send messages of up to {app.max_message_bytes} octets"
    return Refusal(Reason.SIZE, 552, "5.3.4", text)


def split_address(address: str) -> tuple[str, str]:
    """Local part and domain in the form in which they are compared; see the module docstring."""
    folded = address.lower() if address.isascii() else address.translate(_UPPER)
    local, at, domain = folded.rpartition("@")
    if '"' in local or "\\" in local:
        local = _QUOTING.sub(lambda quoting: quoting[1] or "", local)
    return (local, domain.removesuffix(".")) if at else (domain, "")


def shown(address: str) -> str:
    """An address of a stranger as a reply may show it: printable ASCII, of bounded length."""
    # Not by the codec unicode_escape, which Python may have to load after rights were dropped.
    return ascii(address[:_MAX_SHOWN])[1:-1]


def _dns_forms(patterns: Iterable[str]) -> list[str]:
    parts = [pattern.rpartition("@") for pattern in patterns]
    return [f"{local}@{_dns_form(domain)}" for local, _, domain in parts if not domain.isascii()]


def _dns_form(domain: str) -> str:
    try:
        return domain.encode("idna").decode("ascii").lower()
    except UnicodeError:
        return domain
