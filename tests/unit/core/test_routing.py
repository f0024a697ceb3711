"""Tests of `sesguard.core.routing`."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesguard.core.credential import CredentialVersion
from sesguard.core.routing import (
    RoutingRule,
    choose,
    choose_rule,
    is_our_host,
    rule_named,
    sender_domain,
    smtp_password,
)
from sesguard.core.secret import Secret
from sesguard.errors import CredentialError

US = "email-smtp.us-east-1.amazonaws.com"
EU = "email-smtp.eu-west-1.amazonaws.com"
VPC = "vpce-0a-1b.email-smtp.us-east-1.vpce.amazonaws.com"

MAIN = RoutingRule("main", US, 587, ("us-east-1", "eu-west-1"))
SHOP = RoutingRule("shop", US, 587, ("us-east-1",), ("shop.example", "Store.Example."))
PRIVATE = RoutingRule("private", "ses.internal", 2587, ("eu-west-1", "us-east-1"))


def _version(**passwords: str) -> CredentialVersion:
    named = {name.replace("_", "-"): Secret(value) for name, value in passwords.items()}
    return CredentialVersion(1, "AKIAEXAMPLE000000000", named, "2026-01-01T00:00:00Z", "test")


@pytest.mark.parametrize(
    "host", [US, US.upper(), US + ".", EU, "email-smtp-fips.us-east-1.amazonaws.com", VPC, None]
)
def test_the_only_rule_serves_every_ses_host_of_its_regions(host: str | None) -> None:
    """Own host, other regions, FIPS and VPC names; case and one final dot do not count."""
    assert "main" == choose([MAIN], host, "someone@example.org")


@pytest.mark.parametrize(
    "host",
    [
        "email-smtp.ap-south-1.amazonaws.com",
        "smtp.example.org",
        "email-smtp.us-east-1.amazonaws.com.evil.example",
        "email-\u017fmtp.us-east-1.amazonaws.com",
        "",
    ],
)
def test_a_host_of_nobody_gets_no_credential(host: str) -> None:
    """A foreign region, a look-alike and an empty name are errors that name the host."""
    with pytest.raises(CredentialError, match="no credential serves"):
        choose([MAIN, SHOP], host, None)


@pytest.mark.parametrize(
    ("sender", "expected"),
    [
        ("a@shop.example", "shop"),
        ("a@SHOP.Example", "shop"),
        ("a@store.example", "shop"),
        ("odd@local@shop.example", "shop"),
        ("a@sub.shop.example", "main"),
        ("a@shop.example.evil", "main"),
        ("shop.example", "main"),
        ("a@", "main"),
        ("", "main"),
        (None, "main"),
    ],
)
def test_a_rule_for_the_senders_domain_beats_one_for_everybody(
    sender: str | None, expected: str
) -> None:
    """Only the exact domain after the last @ counts; every other sender gets the general rule."""
    assert expected == choose([MAIN, SHOP], US, sender)


def test_a_sender_domain_is_not_decoded() -> None:
    """The Kelvin sign is not the letter k: nobody slips into another domain by it."""
    rule = replace(SHOP, sender_domains=("bank.example",))

    assert "main" == choose([MAIN, rule], US, "a@ban\u212a.example")


def test_a_domain_that_is_not_ascii_matches_itself() -> None:
    """An internationalised domain is compared as it is written."""
    rule = replace(SHOP, sender_domains=("b\u00fccher.example",))

    assert "shop" == choose([MAIN, rule], US, "a@b\u00fccher.example")


def test_a_sender_without_a_rule_is_refused_where_all_rules_name_domains() -> None:
    """The error says that the credential is for other senders."""
    with pytest.raises(
        CredentialError, match=r"no credential serves .* for other.example; shop do"
    ):
        choose([SHOP], US, "a@other.example")


def test_equal_rules_are_an_error_and_not_a_guess() -> None:
    """The error names both."""
    with pytest.raises(CredentialError, match=r"several credentials serve .*: main, second"):
        choose([MAIN, replace(MAIN, credential_id="second")], US, None)


def test_a_rule_for_the_very_host_beats_one_for_its_region() -> None:
    """A credential for a VPC endpoint and one for the public endpoint can share a region."""
    through_vpc = RoutingRule("vpc", VPC, 587, ("us-east-1",))

    assert "vpc" == choose([MAIN, through_vpc], VPC, None)
    assert "main" == choose([MAIN, through_vpc], US, None)


def test_the_sender_counts_more_than_the_very_host() -> None:
    """A policy about who may send is not undone by a more exact host name."""
    through_vpc = RoutingRule("vpc", VPC, 587, ("us-east-1",))

    assert "shop" == choose([MAIN, SHOP, through_vpc], VPC, "a@shop.example")


def test_without_a_host_the_sender_decides() -> None:
    """Postfix may ask by sender alone."""
    assert "shop" == choose([PRIVATE, SHOP], None, "a@shop.example")


def test_without_rules_nothing_is_chosen() -> None:
    """An empty settings file is an error, not a crash."""
    with pytest.raises(CredentialError, match="no credential serves any host"):
        choose([], None, None)


def test_a_rule_is_found_by_the_name_of_its_credential() -> None:
    """Names are exact."""
    assert SHOP == rule_named([MAIN, SHOP], "shop")
    with pytest.raises(CredentialError, match="no credential 'Shop'"):
        rule_named([MAIN, SHOP], "Shop")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (US, True),
        ("email-smtp.ap-south-1.amazonaws.com", True),
        ("SES.internal.", True),
        ("mx.example.org", False),
        ("", False),
    ],
)
def test_every_ses_host_and_every_configured_host_is_ours(host: str, expected: bool) -> None:
    """Also an SES host of a region without a credential: going on without AUTH would bounce."""
    assert expected is is_our_host([MAIN, PRIVATE], host)


@pytest.mark.parametrize(
    ("address", "expected"),
    [("a@B.Example", "b.example"), ("a@b.example.", "b.example"), ("@x", "x"), ("x", None)],
)
def test_a_domain_is_what_stands_after_the_last_at(address: str, expected: str | None) -> None:
    """Folded, or None."""
    assert expected == sender_domain(address)


def test_the_password_is_that_of_the_hosts_region() -> None:
    """A host that names a region decides."""
    version = _version(us_east_1="us", eu_west_1="eu")

    assert "eu" == smtp_password(version, MAIN, EU).reveal()


@pytest.mark.parametrize("host", [None, "ses.internal"])
def test_a_host_without_a_region_takes_the_rules_default_region(host: str | None) -> None:
    """The first region of the settings is the default."""
    version = _version(us_east_1="us", eu_west_1="eu")

    assert "eu" == smtp_password(version, PRIVATE, host).reveal()


def test_a_single_password_serves_a_host_without_a_region() -> None:
    """Also where its region is not the rule's."""
    assert "us" == smtp_password(_version(us_east_1="us"), PRIVATE, "ses.internal").reveal()


def test_a_version_without_the_region_is_an_error() -> None:
    """Never the password of another region."""
    with pytest.raises(CredentialError, match="no SMTP password for"):
        smtp_password(_version(us_east_1="us"), MAIN, EU)


NAMES = st.sampled_from([US, EU, VPC, "ses.internal", "x.example", ""]) | st.text(max_size=20)
RULES = st.lists(
    st.builds(
        RoutingRule,
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from([US, EU, VPC, "ses.internal"]),
        st.just(587),
        st.sampled_from([("us-east-1",), ("eu-west-1", "us-east-1")]),
        st.sampled_from([(), ("x.example",), ("x.example", "y.example")]),
    ),
    max_size=4,
)


@given(RULES, st.none() | NAMES, st.none() | NAMES.map(lambda name: f"a@{name}"))
def test_a_choice_always_fits_and_never_depends_on_the_order(
    rules: list[RoutingRule], host: str | None, sender: str | None
) -> None:
    """Whatever is asked: the chosen rule serves the host and the sender, in any order of rules."""
    outcomes = set[RoutingRule | None]()
    for order in (rules, rules[::-1]):
        try:
            rule = choose_rule(order, host, sender)
        except CredentialError:
            outcomes.add(None)
        else:
            outcomes.add(rule)
            assert host is None or rule.serves(host)
            assert not rule.sender_domains or rule.names_sender(sender_domain(sender))
    assert 1 == len(outcomes)
