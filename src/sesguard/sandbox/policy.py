"""
Does IAM allow it: the policies of a user against one action on one resource.

The rule of IAM: a matching Deny wins, else a matching Allow is needed, else it is denied.
Statements match by Action or NotAction (without regard to case), Resource or NotResource (with
regard to case), both with ``*`` and ``?``, and Condition (`sesguard.sandbox.conditions`).

A policy with a part that is not known here denies everything, and the reason says which part: a
Deny that was not understood must not become an Allow.

Left out: policy variables, permissions boundaries, session and organization policies, policies of
the SES identity itself, Principal.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sesguard.sandbox.backends import PolicyDocument
from sesguard.sandbox.conditions import (
    Context,
    UnsupportedError,
    as_list,
    conditions_met,
    wildcard_match,
)

_KNOWN_ELEMENTS: Final = frozenset(
    {"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"}
)


@dataclass(frozen=True, slots=True)
class Decision:
    """What IAM says, and why."""

    allowed: bool
    reason: str
    """For the log of the sandbox: names the policy, or the part of it that is not known."""


@dataclass(frozen=True, slots=True)
class _Request:
    action: str
    resource: str
    context: Context


def evaluate(
    policies: Iterable[PolicyDocument], action: str, resource: str, context: Context
) -> Decision:
    """
    Decide one action on one resource.

    Args:
        policies: All that apply to the user.
        action: Such as ``ses:SendRawEmail``.
        resource: Its ARN.
        context: Values of the condition keys.
    """
    request = _Request(action, resource, context)
    allowed_by: str | None = None
    for policy in policies:
        try:
            effects = _effects(policy.document, request)
        except UnsupportedError as error:
            return Decision(False, f"policy {policy.name} has something unknown: {error}")
        if "Deny" in effects:
            return Decision(False, f"policy {policy.name} denies it")
        if "Allow" in effects and allowed_by is None:
            allowed_by = policy.name
    if allowed_by is None:
        return Decision(False, "no policy allows it")
    return Decision(True, f"policy {allowed_by} allows it")


def _effects(document: str, request: _Request) -> set[str]:
    """The effects of the statements that match."""
    try:
        policy = json.loads(document)
    except ValueError as error:
        raise UnsupportedError("not JSON") from error
    statements = policy.get("Statement") if isinstance(policy, dict) else None
    if isinstance(statements, dict):
        statements = [statements]
    if not isinstance(statements, list):
        raise UnsupportedError("no Statement")
    return {effect for effect in [_effect(item, request) for item in statements] if effect}


def _effect(statement: object, request: _Request) -> str | None:
    if not isinstance(statement, dict):
        raise UnsupportedError("a statement is not an object")
    unknown = statement.keys() - _KNOWN_ELEMENTS
    if unknown:
        raise UnsupportedError(f"statement element {min(unknown)}")
    effect = statement.get("Effect")
    if effect not in {"Allow", "Deny"}:
        raise UnsupportedError(f"Effect {effect!r}")
    # All three are looked at before the answer, so that what is unknown is always found.
    matches = (
        _element_matches(statement, "Action", request.action, ignore_case=True),
        _element_matches(statement, "Resource", request.resource, ignore_case=False),
        conditions_met(statement.get("Condition", {}), request.context),
    )
    return str(effect) if all(matches) else None


def _element_matches(
    statement: dict[str, object], name: str, value: str, *, ignore_case: bool
) -> bool:
    negated = f"Not{name}"
    if (name in statement) is (negated in statement):
        raise UnsupportedError(f"a statement needs either {name} or {negated}")
    patterns = as_list(statement[name if name in statement else negated])
    found = [wildcard_match(pattern, value, ignore_case=ignore_case) for pattern in patterns]
    return any(found) is (name in statement)
