"""Deriving and recognising SES SMTP passwords: tests of `sesguard.core.smtp_password`."""

import base64
import hashlib
import hmac
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesguard.core.secret import Secret
from sesguard.core.shapes import is_smtp_password
from sesguard.core.smtp_password import (
    PasswordVersion,
    _derive_v4,
    derive_for_regions,
    derive_smtp_password,
    password_version,
    require_secret_key,
)
from sesguard.errors import CredentialError
from unit.core.generated import OLD_PASSWORD, PASSWORD, RAW_KEY, VECTORS, read_stanzas

ALL = read_stanzas(VECTORS / "smtp_passwords.txt")


def _expecting(expectation: str) -> list[dict[str, str]]:
    return [stanza for stanza in ALL if stanza["expect"] == expectation]


def test_the_vector_file_has_every_published_vector() -> None:
    """Five of version 4 and three of version 2, each with its source."""
    published = [s for s in ALL if not s["source"].startswith("computed")]
    assert {"v4": 5, "v2": 3} == Counter(stanza["expect"] for stanza in published)


@pytest.mark.parametrize(
    "vector", _expecting("v4"), ids=lambda v: f"{v['secret-key']}-{v['region']}"
)
def test_the_derivation_gives_the_published_password(vector: dict[str, str]) -> None:
    """The algorithm takes any text for the key: two published keys are shorter than real ones."""
    assert vector["password"] == _derive_v4(vector["secret-key"], vector["region"]).reveal()
    assert PasswordVersion.V4 is password_version(vector["password"])


@pytest.mark.parametrize("vector", _expecting("v2"), ids=lambda v: v["secret-key"])
def test_a_version_2_password_is_recognised_and_never_derived(vector: dict[str, str]) -> None:
    """It is what the old algorithm gives, and no region gives it any more."""
    digest = hmac.new(vector["secret-key"].encode(), b"SendRawEmail", hashlib.sha256).digest()
    assert vector["password"] == base64.b64encode(b"\x02" + digest).decode()
    assert PasswordVersion.V2 is password_version(vector["password"])
    assert vector["password"] != _derive_v4(vector["secret-key"], "us-east-1").reveal()


@pytest.mark.parametrize("vector", _expecting("refused"), ids=lambda v: v["source"])
def test_what_has_not_the_form_of_a_key_or_a_region_is_refused(vector: dict[str, str]) -> None:
    """With a message that never contains the key."""
    with pytest.raises(CredentialError) as caught:
        derive_smtp_password(Secret(vector["secret-key"]), vector["region"])
    assert vector["secret-key"].strip('"') not in f"{caught.value} {caught.value.hint}"


def test_each_mistake_has_a_message_of_its_own() -> None:
    """A password given as the key is named as such; a host given as the region too."""
    with pytest.raises(CredentialError, match="is an SES SMTP password, not an IAM secret"):
        require_secret_key(Secret(PASSWORD))
    with pytest.raises(CredentialError, match="is an SES SMTP password, not an IAM secret"):
        require_secret_key(Secret(OLD_PASSWORD))
    with pytest.raises(CredentialError, match="does not have the form of an IAM secret"):
        require_secret_key(Secret("short"))
    with pytest.raises(CredentialError, match="is an SES host name, not a region") as caught:
        derive_smtp_password(Secret(RAW_KEY), "email-smtp.us-east-1.amazonaws.com")
    assert "use us-east-1" == caught.value.hint


def test_every_region_gets_a_password_of_its_own() -> None:
    """In the order given, so that the secret key can be dropped."""
    regions = ["us-west-2", "eu-west-1", "us-east-1"]
    passwords = derive_for_regions(Secret(RAW_KEY), regions)
    assert regions == list(passwords)
    assert 3 == len({password.reveal() for password in passwords.values()})
    assert PASSWORD == passwords["us-east-1"].reveal()


def test_no_region_is_an_error() -> None:
    """Dropping the key would lose it for nothing."""
    with pytest.raises(CredentialError, match="no region to derive an SMTP password for"):
        derive_for_regions(Secret(RAW_KEY), [])


def test_a_region_that_the_table_does_not_know_is_not_refused() -> None:
    """AWS adds regions; the form is all that counts."""
    assert password_version(derive_smtp_password(Secret(RAW_KEY), "mx-central-1").reveal())


@given(
    key=st.text("ABCabc019+/", min_size=40, max_size=40),
    region=st.sampled_from(["us-east-1", "eu-west-1", "us-gov-west-1"]),
)
def test_a_derived_password_is_always_recognised(key: str, region: str) -> None:
    """By its decoded version byte and by its shape."""
    password = derive_smtp_password(Secret(key), region).reveal()
    assert PasswordVersion.V4 is password_version(password)
    assert is_smtp_password(password)


@given(digest=st.binary(min_size=0, max_size=40), first=st.integers(0, 255))
def test_the_shape_and_the_version_byte_agree(digest: bytes, first: int) -> None:
    """On any base64, whatever its length and first byte."""
    text = base64.b64encode(bytes([first]) + digest).decode()
    assert is_smtp_password(text) is (password_version(text) is not None)


@pytest.mark.parametrize(
    "text", ["", "é" * 44, "B" * 43, "====", PASSWORD + "\n", PASSWORD[:-1] + "!"]
)
def test_other_text_has_no_version(text: str) -> None:
    """Not base64, or not 44 characters."""
    assert password_version(text) is None
