"""The value of a managed secret: what is read, what is refused, and what a refusal says."""

import json
import traceback
from pathlib import Path
from typing import Any

import pytest

from sesguard.core.secret import Secret
from sesguard.core.smtp_password import derive_smtp_password
from sesguard.errors import CheckFailed
from sesguard.rotation.managed_value import ManagedValue, parse_value

FIRST: dict[str, Any] = {"version": 1, "iam_user": "mailer", "regions": ["us-east-1"]}
PASSWORD = derive_smtp_password(Secret("x" * 40), "us-east-1").reveal()
FULL: dict[str, Any] = FIRST | {
    "host": "vpce.example.com",
    "port": 465,
    "username": "AKIA" + "A" * 16,
    "passwords": {"us-east-1": PASSWORD},
    "created_at": "2026-01-02T03:04:05Z",
}
HOSTILE = "hunter2/hunter2"


def parse(document: object) -> ManagedValue:
    """Read a value."""
    return parse_value(Secret(json.dumps(document)), "mail/ses")


@pytest.mark.parametrize("document", [FIRST, FULL])
def test_what_was_written_is_read_again(document: dict[str, Any]) -> None:
    """A first value gains its defaults, and nothing is lost."""
    value = parse(document)

    assert value == parse_value(value.seal(), "mail/ses")
    assert document.items() <= json.loads(value.seal().reveal()).items()


def test_what_it_is_for_the_test_of_a_login() -> None:
    """Settings and version as any other credential has them."""
    value = parse(FULL)
    settings, version = value.settings(Path("ca.pem")), value.credential_version()

    assert ("vpce.example.com", 465, "mailer") == (settings.host, settings.port, settings.iam_user)
    assert "2026-01-02T03:04:05+00:00" == version.created_at
    assert PASSWORD == version.password_for("email-smtp.us-east-1.amazonaws.com").reveal()


def test_a_password_is_not_shown() -> None:
    """Neither by the value nor by its text."""
    value = parse(FULL)

    assert PASSWORD not in repr(value) + repr(value.seal())


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"version": 2}, "version"),
        ({"iam_user": HOSTILE}, "iam_user"),
        ({"regions": []}, "regions"),
        ({"regions": [HOSTILE]}, "regions"),
        ({"regions": ["us-east-1\n"]}, "regions"),
        ({"host": 1}, "host"),
        ({"port": 0}, "port"),
        ({"username": HOSTILE}, "username"),
        ({"passwords": {"us-east-1": HOSTILE}}, "passwords"),
        ({"passwords": {"us-east-1": 1}}, "passwords"),
        ({"passwords": {HOSTILE: PASSWORD}}, "passwords"),
        ({"created_at": "yesterday " + HOSTILE}, "created_at"),
        ({"created_at": "2026-01-02T03:04:05"}, "created_at"),
        ({HOSTILE: HOSTILE}, "the whole"),
        ({"x` - at `$.hunter2": 1}, "the whole"),
        ({"username": None}, "the whole"),
        ({"passwords": {}}, "the whole"),
        ({"created_at": None}, "the whole"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], field: str) -> None:
    """The field is told, and neither the message nor its causes quote."""
    with pytest.raises(CheckFailed) as caught:
        parse(FULL | change)

    assert field == caught.value.parameters["field"]
    assert "hunter2" not in "".join(traceback.format_exception_only(caught.value))
    assert (None, None) == (caught.value.__cause__, caught.value.__context__)


@pytest.mark.parametrize("text", [HOSTILE, "", "[]", f"AKIAAAAAAAAAAAAAAAAA:{PASSWORD}", "\ud800"])
def test_what_is_no_json_object_is_refused(text: str) -> None:
    """The value of the published sample, for one."""
    with pytest.raises(CheckFailed, match="is not a credential of ours"):
        parse_value(Secret(text), "mail/ses")
