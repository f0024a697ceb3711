"""
Which credential serves a message.

A rule says at which SMTP host, and for which domains of the envelope sender, a credential is used.
The choice is made in three steps; each keeps the better rules of the step before:

1. Host: the rule's own host, or an SES host name of one of its regions. No host: every rule.
2. Sender: the rules that name the sender's domain; when there are none, the rules that name no
   domain at all. Domains match exactly, never their subdomains.
3. Host again: the rules whose own host was asked for beat those that fit by region.

One rule must be left. None, or more than one, is a `CredentialError`, never a guess: the wrong
credential would send mail in somebody else's name.

Names compare without regard to ASCII case and to one final dot. Nothing is decoded: a name that is
not ASCII equals no host name, and equals a domain only byte for byte.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sesguard.core.credential import CredentialVersion
from sesguard.core.endpoints import is_ses_host, region_of_host, smtp_host
from sesguard.core.secret import Secret
from sesguard.errors import CredentialError


@dataclass(frozen=True, slots=True)
class RoutingRule:
    """Where, and for whom, a credential is used."""

    credential_id: str
    host: str
    """SMTP host that the credential is meant for."""
    port: int
    """Port at that host. It takes no part in the choice: an MTA that asks does not tell it."""
    regions: tuple[str, ...]
    """AWS regions whose SES hosts it serves as well; the first is the default."""
    sender_domains: tuple[str, ...] = ()
    """Domains of the envelope senders it is for; empty: those that no other rule names."""

    def names_host(self, host: str) -> bool:
        """Whether `host` is the rule's own host."""
        return host.isascii() and _folded(host) == _folded(self.host)

    def serves(self, host: str) -> bool:
        """Whether `host` is the rule's own host or an SES host in one of its regions."""
        return self.names_host(host) or (host.isascii() and region_of_host(host) in self.regions)

    def names_sender(self, domain: str | None) -> bool:
        """Whether the rule lists `domain`, which is already folded."""
        return domain is not None and any(domain == _folded(d) for d in self.sender_domains)


def choose(rules: Iterable[RoutingRule], host: str | None, sender: str | None) -> str:
    """
    Choose the credential for a message.

    Args:
        rules: All there are.
        host: SMTP host that the message goes to; None when it is not known.
        sender: Envelope sender; None or empty when there is none.

    Returns:
        The credential's id.

    Raises:
        CredentialError: No rule fits, or several fit equally well.
    """
    return choose_rule(rules, host, sender).credential_id


def choose_rule(rules: Iterable[RoutingRule], host: str | None, sender: str | None) -> RoutingRule:
    """Choose like `choose`, and give the whole rule."""
    serving = [rule for rule in rules if host is None or rule.serves(host)]
    domain = sender_domain(sender)
    fitting = [rule for rule in serving if rule.names_sender(domain)]
    fitting = fitting or [rule for rule in serving if not rule.sender_domains]
    if host is not None and len(fitting) > 1:
        fitting = [rule for rule in fitting if rule.names_host(host)] or fitting
    if len(fitting) == 1:
        return fitting[0]
    raise _no_choice(fitting or serving, found=bool(fitting), host=host, domain=domain)


def rule_named(rules: Iterable[RoutingRule], name: str) -> RoutingRule:
    """
    The rule of the credential called `name`.

    Raises:
        CredentialError: There is none.
    """
    for rule in rules:
        if rule.credential_id == name:
            return rule
    raise CredentialError(
        "the settings have no credential {name!r}",
        hint="add a table [credentials.NAME] to the settings, or ask for another one",
        name=name[:64],
    )


def is_our_host(rules: Iterable[RoutingRule], host: str) -> bool:
    """Whether mail to `host` must be authenticated by us: an SES host, or a rule's own host."""
    return is_ses_host(host) or any(rule.names_host(host) for rule in rules)


def sender_domain(sender: str | None) -> str | None:
    """The folded domain of an address (after its last ``@``), or None."""
    _, at, domain = (sender or "").rpartition("@")
    return _folded(domain) if at and domain else None


def smtp_password(version: CredentialVersion, rule: RoutingRule, host: str | None) -> Secret:
    """
    The password of `version` that works at `host`, or at the rule's own host.

    A host that names no region (a VPC endpoint's private name, a sandbox) belongs to the rule's
    default region.

    Raises:
        CredentialError: The version has no password for that region.
    """
    name = host or rule.host
    if region_of_host(name) is None and len(version.passwords) > 1 and rule.regions:
        name = smtp_host(rule.regions[0])
    return version.password_for(name)


def _folded(name: str) -> str:
    # str.lower() would also turn the Kelvin sign into "k": two domains would become one.
    bare = name.removesuffix(".")
    return bare.lower() if bare.isascii() else bare


def _no_choice(
    rules: Sequence[RoutingRule], *, found: bool, host: str | None, domain: str | None
) -> CredentialError:
    fields = {
        "host": (host or "any host")[:255],
        "domain": (domain or "no sender domain")[:255],
        "names": ", ".join(sorted(rule.credential_id for rule in rules)),
    }
    if found:
        return CredentialError(
            "several credentials serve {host} and {domain}: {names}",
            hint="give each of them its own sender_domains",
            **fields,
        )
    if rules:
        return CredentialError(
            "no credential serves {host} for {domain}; {names} do for other senders",
            hint="add the domain to sender_domains, or ask for a credential by its name",
            **fields,
        )
    return CredentialError(
        "no credential serves {host}",
        hint="add its region to the credential's regions, or set host",
        **fields,
    )
