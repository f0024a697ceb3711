"""IAM's decision, case by case."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesguard.sandbox.backends import PolicyDocument
from sesguard.sandbox.conditions import UnsupportedError, wildcard_match
from sesguard.sandbox.policy import Decision, evaluate

ACTION = "ses:SendRawEmail"
IDENTITY = "arn:aws:ses:us-east-1:123456789012:identity/example.com"
CONTEXT = {
    "aws:sourceip": ["198.51.100.7"],
    "aws:securetransport": ["true"],
    "aws:currenttime": ["2026-03-01T12:00:00+00:00"],
    "ses:fromaddress": ["app@example.com"],
    "ses:feedbackaddress": ["bounce@example.com"],
    "ses:fromdisplayname": ["The App"],
    "ses:recipients": ["a@example.net", "b@example.org"],
}


def statement(**parts: Any) -> dict[str, Any]:
    """An Allow for sending with anything, changed by `parts`; None takes a part away."""
    whole = {"Effect": "Allow", "Action": ACTION, "Resource": "*", **parts}
    return {name: value for name, value in whole.items() if value is not None}


def decide(*statements: Any, context: dict[str, list[str]] | None = None) -> Decision:
    """One policy for each statement."""
    policies = [
        PolicyDocument(f"policy-{index}", json.dumps({"Statement": [item]}))
        for index, item in enumerate(statements)
    ]
    return evaluate(policies, ACTION, IDENTITY, CONTEXT if context is None else context)


def allowed(*statements: Any, context: dict[str, list[str]] | None = None) -> bool:
    """Whether it is allowed."""
    return decide(*statements, context=context).allowed


def condition(operator: str, key: str, value: Any) -> bool:
    """Whether an Allow with that condition allows."""
    return allowed(statement(Condition={operator: {key: value}}))


def test_nothing_is_allowed_without_a_policy() -> None:
    """The default is to deny."""
    assert Decision(False, "no policy allows it") == decide()


def test_a_deny_wins_wherever_it_stands() -> None:
    """An explicit Deny beats an Allow before and after it."""
    deny = statement(Effect="Deny")

    assert allowed(statement())
    assert not allowed(statement(), deny)
    assert not allowed(deny, statement())


def test_the_reason_names_the_policy() -> None:
    """The log says which policy decided."""
    assert decide(statement()).reason == "policy policy-0 allows it"
    assert decide(statement(), statement(Effect="Deny")).reason == "policy policy-1 denies it"


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"Action": "*"}, True),
        ({"Action": "ses:*"}, True),
        ({"Action": "SES:sendrawemail"}, True),
        ({"Action": "ses:Send*"}, True),
        ({"Action": "ses:Send???Email"}, True),
        ({"Action": ["s3:GetObject", "ses:SendRawEmail"]}, True),
        ({"Action": "ses:SendEmail"}, False),
        ({"Action": "ses:Send??Email"}, False),
        ({"Action": []}, False),
        ({"Action": None, "NotAction": "s3:*"}, True),
        ({"Action": None, "NotAction": ["s3:*", "ses:Send*"]}, False),
    ],
)
def test_actions(parts: dict[str, Any], expected: bool) -> None:
    """Action and NotAction, with wildcards, in any case."""
    assert expected is allowed(statement(**parts))


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"Resource": IDENTITY}, True),
        ({"Resource": "arn:aws:ses:*:*:identity/example.com"}, True),
        ({"Resource": "arn:aws:ses:us-east-?:123456789012:identity/*"}, True),
        ({"Resource": [IDENTITY.replace("example.com", "x"), IDENTITY]}, True),
        ({"Resource": IDENTITY.upper()}, False),
        ({"Resource": "arn:aws:ses:us-east-1:123456789012:configuration-set/*"}, False),
        ({"Resource": "arn:aws:ses:us-east-1:123456789012:identity/example"}, False),
        ({"Resource": None, "NotResource": IDENTITY}, False),
        ({"Resource": None, "NotResource": "arn:aws:s3:::*"}, True),
    ],
)
def test_resources(parts: dict[str, Any], expected: bool) -> None:
    """Resource and NotResource, with wildcards, with regard to case."""
    assert expected is allowed(statement(**parts))


@pytest.mark.parametrize(
    ("operator", "key", "value", "expected"),
    [
        ("StringEquals", "ses:FromAddress", "app@example.com", True),
        ("StringEquals", "SES:fromaddress", "app@example.com", True),
        ("StringEquals", "ses:FromAddress", "APP@example.com", False),
        ("StringEquals", "ses:FromAddress", ["x@example.com", "app@example.com"], True),
        ("StringEquals", "ses:FromAddress", "*@example.com", False),
        ("StringEqualsIgnoreCase", "ses:FromAddress", "APP@EXAMPLE.com", True),
        ("StringNotEquals", "ses:FromAddress", "app@example.com", False),
        ("StringNotEquals", "ses:FromAddress", ["x@y.z", "app@example.com"], False),
        ("StringNotEquals", "ses:FromAddress", "x@y.z", True),
        ("StringNotEqualsIgnoreCase", "ses:FromAddress", "APP@example.com", False),
        ("StringLike", "ses:FromAddress", "*@example.com", True),
        ("StringLike", "ses:FromAddress", "*@EXAMPLE.com", False),
        ("StringLike", "ses:FromDisplayName", "The ?pp", True),
        ("StringLike", "ses:FeedbackAddress", "bounce@*", True),
        ("StringNotLike", "ses:FromAddress", "*@example.com", False),
        ("StringNotLike", "ses:FromAddress", "*@example.org", True),
        ("IpAddress", "aws:SourceIp", "198.51.100.7/32", True),
        ("IpAddress", "aws:SourceIp", "198.51.100.7", True),
        ("IpAddress", "aws:SourceIp", ["10.0.0.0/8", "198.51.100.0/24"], True),
        ("IpAddress", "aws:SourceIp", "198.51.101.0/24", False),
        ("IpAddress", "aws:SourceIp", "2001:db8::/32", False),
        ("IpAddress", "ses:FromAddress", "198.51.100.0/24", False),
        ("NotIpAddress", "aws:SourceIp", "198.51.100.0/24", False),
        ("NotIpAddress", "aws:SourceIp", ["10.0.0.0/8", "192.0.2.0/24"], True),
        ("Bool", "aws:SecureTransport", "true", True),
        ("Bool", "aws:SecureTransport", True, True),
        ("Bool", "aws:SecureTransport", "false", False),
        ("DateLessThan", "aws:CurrentTime", "2026-03-02T00:00:00Z", True),
        ("DateLessThan", "aws:CurrentTime", "2026-03-01T12:00:00Z", False),
        ("DateLessThanEquals", "aws:CurrentTime", "2026-03-01T12:00:00Z", True),
        ("DateGreaterThan", "aws:CurrentTime", "2026-03-01", True),
        ("DateGreaterThan", "aws:CurrentTime", "2026-03-02", False),
        ("DateGreaterThan", "aws:CurrentTime", "1767225600", True),
        ("DateGreaterThanEquals", "aws:CurrentTime", "2026-03-01T12:00:00+00:00", True),
        ("DateEquals", "aws:CurrentTime", "2026-03-01T12:00:00Z", True),
        ("DateNotEquals", "aws:CurrentTime", "2026-03-01T12:00:00Z", False),
        ("Null", "aws:SourceVpce", "true", True),
        ("Null", "aws:SourceVpce", "false", False),
        ("Null", "aws:SourceIp", "true", False),
        ("Null", "aws:SourceIp", False, True),
    ],
)
def test_conditions(operator: str, key: str, value: Any, expected: bool) -> None:
    """Every operator, with a value that matches and one that does not."""
    assert expected is condition(operator, key, value)


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        ("StringEquals", False),
        ("StringLike", False),
        ("IpAddress", False),
        ("Bool", False),
        ("StringNotEquals", True),
        ("StringNotLike", True),
        ("NotIpAddress", True),
        ("StringEqualsIfExists", True),
        ("BoolIfExists", True),
        ("StringNotEqualsIfExists", True),
        ("ForAllValues:StringEquals", True),
        ("ForAnyValue:StringEquals", False),
    ],
)
def test_a_key_that_is_not_there(operator: str, expected: bool) -> None:
    """Without the key, a positive operator fails, and a negated one and IfExists succeed."""
    value = {"Bool": "true", "Ip": "10.0.0.0/8"}
    wanted = next((text for part, text in value.items() if part in operator), "x")

    assert expected is condition(operator, "aws:SourceVpce", wanted)


@pytest.mark.parametrize(
    ("operator", "value", "expected"),
    [
        ("StringLike", "*@example.net", True),
        ("StringNotLike", "*@example.net", False),
        ("ForAnyValue:StringLike", "*@example.net", True),
        ("ForAnyValue:StringLike", "*@example.com", False),
        ("ForAllValues:StringLike", "*@example.net", False),
        ("ForAllValues:StringLike", ["*@example.net", "*@example.org"], True),
        ("ForAllValues:StringNotLike", "*@example.net", False),
        ("ForAllValues:StringNotLike", "*@example.com", True),
        ("ForAnyValue:StringNotLike", "*@example.net", True),
        ("ForAllValues:StringLikeIfExists", "*@example.*", True),
    ],
)
def test_a_key_with_several_values(operator: str, value: Any, expected: bool) -> None:
    """Recipients: one of them, all of them, none of them."""
    assert expected is condition(operator, "ses:Recipients", value)


def test_all_operators_and_keys_must_match() -> None:
    """Operators and keys of one Condition are joined by AND."""
    both = {
        "StringLike": {"ses:FromAddress": "*@example.com", "ses:FeedbackAddress": "*@example.com"},
        "IpAddress": {"aws:SourceIp": "198.51.100.0/24"},
    }
    one_wrong = {**both, "IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}

    assert allowed(statement(Condition=both))
    assert not allowed(statement(Condition=one_wrong))


def test_ipv6_addresses() -> None:
    """A source address of IPv6 is compared with networks of IPv6."""
    context = {"aws:sourceip": ["2001:db8::1"]}
    inside = statement(Condition={"IpAddress": {"aws:SourceIp": ["10.0.0.0/8", "2001:db8::/32"]}})
    outside = statement(Condition={"IpAddress": {"aws:SourceIp": "2001:db9::/32"}})

    assert allowed(inside, context=context)
    assert not allowed(outside, context=context)


def test_the_fence_of_the_how_to() -> None:
    """An Allow for one address plus a Deny for all others holds from both sides."""
    allow = statement(Condition={"StringLike": {"ses:FromAddress": "*@example.com"}})
    deny = statement(Effect="Deny", Condition={"NotIpAddress": {"aws:SourceIp": "198.51.100.7/32"}})

    assert allowed(allow, deny)
    assert not allowed(allow, deny, context={**CONTEXT, "aws:sourceip": ["203.0.113.5"]})


@pytest.mark.parametrize(
    "broken",
    [
        {"Condition": {"NumericLessThan": {"aws:EpochTime": "1"}}},
        {"Condition": {"StringEquals": "no object"}},
        {"Condition": "no object"},
        {"Condition": {"IpAddress": {"aws:SourceIp": "everywhere"}}},
        {"Condition": {"Bool": {"aws:SecureTransport": "perhaps"}}},
        {"Condition": {"DateLessThan": {"aws:CurrentTime": "tomorrow"}}},
        {"Condition": {"StringEquals": {"ses:FromAddress": "${aws:username}@example.com"}}},
        {"Condition": {"ForSomeValues:StringEquals": {"ses:Recipients": "x"}}},
        {"Condition": {"StringNot": {"ses:FromAddress": "x"}}},
        {"Condition": {"NotBool": {"aws:SecureTransport": "true"}}},
        {"Condition": {"StringEquals": {"ses:FromAddress": 5}}},
        {"Resource": "arn:aws:ses:us-east-1:123456789012:identity/${aws:username}"},
        {"Resource": None},
        {"NotResource": "*"},
        {"Action": None},
        {"Action": {"ses": "*"}},
        {"Effect": "Maybe"},
        {"Principal": "*"},
    ],
)
@pytest.mark.parametrize("effect", ["Allow", "Deny"])
def test_what_is_not_understood_denies(broken: dict[str, Any], effect: str) -> None:
    """An unknown part makes the answer Deny and is named, also beside a plain Allow."""
    decision = decide(statement(), statement(**{"Effect": effect, **broken}))

    assert not decision.allowed
    assert "something unknown" in decision.reason


@pytest.mark.parametrize(
    "document", ["", "{", "[]", '{"Statement": 1}', '{"Statement": [1]}', "{}"]
)
def test_a_broken_document_denies(document: str) -> None:
    """A policy that is no policy denies."""
    policies = [PolicyDocument("broken", document), PolicyDocument("good", '{"Statement": []}')]

    assert not evaluate(policies, ACTION, IDENTITY, CONTEXT).allowed


def test_a_single_statement_needs_no_list() -> None:
    """``Statement`` may be one object."""
    policy = PolicyDocument("one", json.dumps({"Version": "2012-10-17", "Statement": statement()}))

    assert evaluate([policy], ACTION, IDENTITY, CONTEXT).allowed


@given(st.text(max_size=30))
def test_a_text_matches_itself_and_the_star(text: str) -> None:
    """Nothing but * and ? is special in a pattern."""
    pattern = text.replace("*", "").replace("?", "").replace("${", "")

    assert wildcard_match(pattern, pattern)
    assert wildcard_match("*", text)
    assert wildcard_match("?" * len(text), text)


@given(st.text(max_size=10), st.text(max_size=10), st.text(max_size=10))
def test_a_star_stands_for_any_run(head: str, middle: str, tail: str) -> None:
    """``head*tail`` matches whatever is between."""
    pattern = "".join(part.replace("*", "").replace("?", "") for part in (head,))
    end = tail.replace("*", "").replace("?", "")
    if "${" not in f"{pattern}*{end}":
        assert wildcard_match(f"{pattern}*{end}", f"{pattern}{middle}{end}")


def test_a_policy_variable_is_refused() -> None:
    """A pattern with a variable is not compared as text."""
    with pytest.raises(UnsupportedError):
        wildcard_match("${aws:username}", "${aws:username}")
