"""Taking secrets out of bytes: tests of `sesguard.core.plaintext.redact`."""

import base64
import random
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesguard.core.encodings import encoded_forms
from sesguard.core.plaintext.detect import find_credentials
from sesguard.core.plaintext.redact import MARKER, contains_any, redact, search_forms
from sesguard.core.secret import Secret
from unit.core.generated import OLD_PASSWORD, PASSWORD, USER, make_password, passwords, usernames

SECRET = Secret(PASSWORD)


@pytest.mark.parametrize("name", encoded_forms(SECRET, USER))
def test_every_form_is_replaced_by_as_many_bytes(name: str) -> None:
    """And counted; what stands around it stays."""
    form = encoded_forms(SECRET, USER)[name]
    content, count = redact(b"<" + form + b">\n<" + form + b">", [SECRET], USER)
    assert 2 == count
    assert 2 * len(form) + 5 == len(content)
    assert b"<>" == content[:1] + content[-1:]
    assert not contains_any(content, search_forms([SECRET], USER))


@given(
    password=passwords,
    username=usernames,
    around=st.lists(st.binary(max_size=30), min_size=2, max_size=6),
    data=st.data(),
)
def test_nothing_of_a_secret_is_left_in_any_form(
    password: str, username: str, around: list[bytes], data: st.DataObject
) -> None:
    """Whatever bytes stand around the forms, also none."""
    secret = Secret(password)
    forms = list(encoded_forms(secret, username).values())
    content = around[0]
    for other in around[1:]:
        content += data.draw(st.sampled_from(forms)) + other
    redacted, count = redact(content, [secret], username)
    assert count >= 1
    assert len(content) == len(redacted)
    assert not contains_any(redacted, forms)


def test_the_whole_auth_plain_message_goes_not_only_the_password_in_it() -> None:
    """The longest form is replaced first."""
    message = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode())
    content, count = redact(message, [SECRET], USER)
    assert (MARKER.ljust(len(message), "-").encode(), 1) == (content, count)


def test_several_secrets_go_in_one_pass() -> None:
    """Each place is counted once."""
    content = f"{PASSWORD} {OLD_PASSWORD} {quote(PASSWORD, safe='')}".encode()
    redacted, count = redact(content, [SECRET, Secret(OLD_PASSWORD)])
    assert 3 == count
    assert not contains_any(redacted, search_forms([SECRET, Secret(OLD_PASSWORD)]))


def test_the_length_in_a_serialised_php_string_stays_right() -> None:
    """WordPress keeps its options that way."""
    content, _count = redact(f's:44:"{PASSWORD}";'.encode(), [SECRET])
    assert f's:44:"{MARKER.ljust(44, "-")}";'.encode() == content


def test_a_short_secret_is_replaced_by_the_whole_marker() -> None:
    """The marker is always recognisable."""
    assert (f"x {MARKER} y".encode(), 1) == redact(b"x abc y", [Secret("abc")])


@pytest.mark.parametrize("secrets", [[], [Secret("")]])
def test_without_a_secret_nothing_changes(secrets: list[Secret]) -> None:
    """An empty secret is not found everywhere."""
    assert (b"anything", 0) == redact(b"anything", secrets)


def test_bytes_that_are_not_text_are_left_alone() -> None:
    """A compiled map is redacted in place."""
    content = bytes(range(256)) + PASSWORD.encode() + bytes(range(256))
    redacted, count = redact(content, [SECRET])
    assert 1 == count
    assert content.replace(PASSWORD.encode(), MARKER.ljust(44, "-").encode()) == redacted


def test_a_redacted_configuration_has_no_credential() -> None:
    """The marker has not the shape of one."""
    rand = random.Random(3)
    secrets = [make_password(rand) for _ in range(20)]
    text = "".join(f"client_send = : {USER} : {secret}\n" for secret in secrets)
    redacted, count = redact(text.encode(), [Secret(secret) for secret in secrets], USER)
    assert (20, []) == (count, find_credentials(redacted.decode(), "exim.conf"))
