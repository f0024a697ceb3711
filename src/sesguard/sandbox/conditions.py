"""
The Condition block of an IAM policy statement.

Operators: StringEquals, StringEqualsIgnoreCase, StringLike, IpAddress (IPv4 and IPv6), Bool,
DateEquals, DateLessThan, DateLessThanEquals, DateGreaterThan, DateGreaterThanEquals, the negated
forms (StringNotEquals, StringNotEqualsIgnoreCase, StringNotLike, NotIpAddress, DateNotEquals), each
also with ``ForAllValues:``, ``ForAnyValue:`` and ``...IfExists``; and Null.

Everything else - another operator, a policy variable, a value that is not of the operator's type -
raises `UnsupportedError`, so that nothing is allowed by a rule that was not understood.

Without a set prefix, a key with several values matches when one of them does, and a negated
operator matches when none does. Context keys are compared without regard to case.

Source: the IAM user guide, reference_policies_elements_condition_operators.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

Context = Mapping[str, Sequence[str]]
"""Condition key in lower case to its values; a key that is not there has no value."""


class UnsupportedError(Exception):
    """A part of a policy that the sandbox does not know."""


def conditions_met(block: object, context: Context) -> bool:
    """
    Whether every operator and key of a Condition block matches.

    Raises:
        UnsupportedError: The block has something that is not known here.
    """
    if not isinstance(block, dict):
        raise UnsupportedError("Condition is not an object")
    # All are looked at before the answer: an unknown operator must be found wherever it stands.
    matches = [
        _matches(operator, _keys(operator, keys), key, context)
        for operator, keys in block.items()
        for key in _keys(operator, keys)
    ]
    return all(matches)


def wildcard_match(pattern: str, value: str, *, ignore_case: bool = False) -> bool:
    """Match IAM's ``*`` (any run of characters) and ``?`` (one character)."""
    if "${" in pattern:
        raise UnsupportedError(f"policy variable in {pattern}")
    expression = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    flags = re.DOTALL | (re.IGNORECASE if ignore_case else 0)
    return re.fullmatch(expression, value, flags) is not None


def as_list(value: object) -> list[str]:
    """
    A policy element that may be one text or a list of texts.

    Raises:
        UnsupportedError: It is neither.
    """
    values = value if isinstance(value, list) else [value]
    texts = [str(item).lower() if isinstance(item, bool) else item for item in values]
    if not all(isinstance(item, str) for item in texts):
        raise UnsupportedError(f"neither text nor a list of texts: {value!r}")
    return [str(item) for item in texts]


def _keys(operator: str, keys: object) -> dict[str, object]:
    if not isinstance(keys, dict):
        raise UnsupportedError(f"{operator} is not an object")
    return keys


def _matches(operator: str, keys: dict[str, object], key: str, context: Context) -> bool:
    wanted = as_list(keys[key])
    values = context.get(key.lower(), ())
    if operator == "Null":
        return _compare_bool(wanted[0], str(not values).lower())
    prefix, _, name = operator.rpartition(":")
    name, if_exists = name.removesuffix("IfExists"), name.endswith("IfExists")
    negated, compare = _operator(name, operator)

    def satisfied(value: str) -> bool:
        found = [compare(pattern, value) for pattern in wanted]
        return any(found) is not negated

    results = [satisfied(value) for value in values]
    if prefix == "ForAllValues":
        return all(results)
    if prefix == "ForAnyValue":
        return any(results)
    if prefix:
        raise UnsupportedError(f"condition operator {operator}")
    if not values:
        return if_exists or negated
    return all(results) if negated else any(results)


def _operator(name: str, full_name: str) -> tuple[bool, Callable[[str, str], bool]]:
    """Whether the operator is a negation, and what compares a wanted with an actual value."""
    if name in _COMPARISONS:
        return False, _COMPARISONS[name]
    positive = name.replace("Not", "", 1)
    if positive == name or positive not in _NEGATABLE:
        raise UnsupportedError(f"condition operator {full_name}")
    return True, _COMPARISONS[positive]


def _compare_text(wanted: str, value: str) -> bool:
    if "${" in wanted:
        raise UnsupportedError(f"policy variable in {wanted}")
    return wanted == value


def _compare_address(wanted: str, value: str) -> bool:
    try:
        network = ipaddress.ip_network(wanted, strict=False)
    except ValueError as error:
        raise UnsupportedError(f"{wanted} is not an address or network") from error
    try:
        return ipaddress.ip_address(value) in network
    except ValueError:
        return False


def _compare_bool(wanted: str, value: str) -> bool:
    if wanted.lower() not in {"true", "false"}:
        raise UnsupportedError(f"{wanted} is not true or false")
    return wanted.lower() == value.lower()


def _date(text: str) -> datetime:
    try:
        if re.fullmatch(r"\d{9,11}", text):
            return datetime.fromtimestamp(int(text), UTC)
        parsed = datetime.fromisoformat(text)
    except ValueError as error:
        raise UnsupportedError(f"{text} is not a date") from error
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


_COMPARISONS: Final[dict[str, Callable[[str, str], bool]]] = {
    "StringEquals": _compare_text,
    "StringEqualsIgnoreCase": lambda wanted, value: _compare_text(wanted.lower(), value.lower()),
    "StringLike": wildcard_match,
    "IpAddress": _compare_address,
    "Bool": _compare_bool,
    "DateEquals": lambda wanted, value: _date(value) == _date(wanted),
    "DateLessThan": lambda wanted, value: _date(value) < _date(wanted),
    "DateLessThanEquals": lambda wanted, value: _date(value) <= _date(wanted),
    "DateGreaterThan": lambda wanted, value: _date(value) > _date(wanted),
    "DateGreaterThanEquals": lambda wanted, value: _date(value) >= _date(wanted),
}
_NEGATABLE: Final = frozenset(
    {"StringEquals", "StringEqualsIgnoreCase", "StringLike", "IpAddress", "DateEquals"}
)
