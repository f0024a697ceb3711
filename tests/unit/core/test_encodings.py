"""Each form is what a real encoder makes: tests of `sesguard.core.encodings`."""

import base64
import json
import random
import urllib.parse
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesguard.core.encodings import MIN_FORM_BYTES, encoded_forms
from sesguard.core.secret import Secret
from unit.core.generated import PASSWORD, USER, make_password, passwords


def found(secret: str, content: bytes, username: str | None = None) -> list[str]:
    """Names of the forms that occur in `content`."""
    forms = encoded_forms(Secret(secret), username)
    return [name for name, form in forms.items() if form in content]


@given(password=passwords, before=st.binary(max_size=7), after=st.binary(max_size=7))
def test_base64_of_a_longer_text_is_found_at_every_offset(
    password: str, before: bytes, after: bytes
) -> None:
    """Whatever stands before and after the value, in both alphabets."""
    data = before + password.encode() + after
    assert f"base64-{len(before) % 3}" in found(password, base64.b64encode(data))
    assert found(password, base64.urlsafe_b64encode(data))


@given(password=passwords, username=st.text(max_size=12))
def test_sasl_messages_are_found(password: str, username: str) -> None:
    """PLAIN as one message, with an authorisation id as well; LOGIN as the password alone."""
    plain = base64.b64encode(f"\0{username}\0{password}".encode())
    assert "auth-plain" in found(password, b"AUTH PLAIN " + plain, username)
    assert found(password, base64.b64encode(f"{username}\0{username}\0{password}".encode()))
    assert "base64-0" in found(password, base64.b64encode(password.encode()))


@given(password=passwords)
def test_urls_are_found_however_they_were_encoded(password: str) -> None:
    """In a path, a query, a form; with capital or small hexadecimal digits."""
    for encoded in (
        urllib.parse.quote(password, safe=""),
        urllib.parse.quote(password),
        urllib.parse.quote_plus(password),
        urllib.parse.urlencode({"p": password}),
        urllib.parse.quote(password, safe="").replace("%2B", "%2b").replace("%2F", "%2f"),
    ):
        assert found(password, encoded.encode())


@given(password=passwords)
def test_other_encodings_are_found(password: str) -> None:
    """JSON with and without escaped slashes, hexadecimal, UTF-16, quoted-printable."""
    for content in (
        json.dumps({"p": password}).encode(),
        json.dumps({"p": password}).replace("/", "\\/").encode(),
        password.encode().hex().encode(),
        password.encode().hex().upper().encode(),
        password.encode("utf-16"),
        password.encode("utf-16-be"),
    ):
        assert found(password, b"\x00" + content)


def test_a_secret_in_the_body_of_a_mail_is_found() -> None:
    """As the email package writes an attachment."""
    message = EmailMessage()
    message.add_attachment(b"x" + PASSWORD.encode(), maintype="a", subtype="b")
    body = message.get_payload(0)
    assert isinstance(body, EmailMessage)
    unfolded = str(body.get_payload()).replace("\n", "").encode()
    assert ["base64-1"] == found(PASSWORD, unfolded)


def test_no_form_is_listed_twice_or_found_in_another_secret() -> None:
    """1,000 secrets: a form of one never occurs in the forms of the next."""
    rand = random.Random(0)
    previous = b""
    for _ in range(1000):
        password = make_password(rand)
        forms = list(encoded_forms(Secret(password), USER).values())
        assert len(set(forms)) == len(forms)
        assert [] == found(password, previous, USER)
        previous = b"\n".join(forms)


@pytest.mark.parametrize("value", ["a", "abc", "é", "\udcff"])
def test_a_short_secret_is_searched_for_as_it_is(value: str) -> None:
    """Its other forms are too short to mean anything."""
    forms = encoded_forms(Secret(value))
    assert value.encode("utf-8", "surrogateescape") == forms.pop("raw")
    assert all(len(form) >= MIN_FORM_BYTES for form in forms.values())


def test_an_empty_secret_has_no_forms() -> None:
    """It would be found everywhere."""
    assert {} == encoded_forms(Secret(""))


def test_bytes_that_were_not_utf_8_are_found_as_those_bytes() -> None:
    """A configuration in Latin-1 is read with surrogates."""
    secret = b"caf\xe9-secret-value".decode("utf-8", "surrogateescape")
    assert "raw" in found(secret, b"password=caf\xe9-secret-value")
    assert found(secret, base64.b64encode(b"caf\xe9-secret-value"))
