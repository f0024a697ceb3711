"""The shapes of credentials in text: tests of `sesguard.core.shapes`."""

import random

import pytest

from sesguard.core.shapes import (
    ACCESS_KEY_ID,
    SES_HOST,
    SMTP_PASSWORD,
    is_access_key_id,
    is_smtp_password,
    looks_like_secret_key,
)
from unit.core.generated import (
    HOST,
    OLD_PASSWORD,
    PASSWORD,
    RAW_KEY,
    USER,
    make_password,
    make_username,
)


@pytest.mark.parametrize("version", [4, 2])
def test_every_generated_password_has_the_shape(version: int) -> None:
    """100,000 of each version."""
    rand = random.Random(version)
    assert all(is_smtp_password(make_password(rand, version)) for _ in range(100_000))


def test_few_of_other_values_of_that_length_have_the_shape() -> None:
    """About 0.8 % for both versions together: the two version bytes out of 256."""
    rand = random.Random(0)
    hits = sum(is_smtp_password(make_password(rand, rand.randrange(256))) for _ in range(100_000))
    assert 600 < hits < 1000


@pytest.mark.parametrize("text", [PASSWORD, OLD_PASSWORD])
@pytest.mark.parametrize("around", ["{}", " {} ", "'{}'", "={};", ":{}\n", "^{}", "<{}>"])
def test_a_password_is_found_among_other_characters(text: str, around: str) -> None:
    """Whatever a configuration format puts around it."""
    assert [text] == SMTP_PASSWORD.findall(around.format(text))


@pytest.mark.parametrize("around", ["{}=", "{}A", "x{}", "/{}", "{}+"])
def test_a_part_of_a_longer_value_is_no_password(around: str) -> None:
    """Base64 that goes on is something else."""
    assert [] == SMTP_PASSWORD.findall(around.format(PASSWORD))


def test_an_access_key_id_is_four_letters_and_sixteen_characters() -> None:
    """Of a long-lived key: the ids of sessions and roles begin otherwise."""
    assert is_access_key_id(USER)
    assert is_access_key_id(make_username(random.Random(0)))
    for text in ("ASIAIOSFODNN7EXAMPLE", USER[:-1], USER + "A", USER.lower(), USER + "\n", ""):
        assert not is_access_key_id(text)
    assert [USER] == ACCESS_KEY_ID.findall(f"x{USER} AKIA {USER}: {USER}b")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (RAW_KEY, True),
        (RAW_KEY[:-1], False),
        (RAW_KEY + "x", False),
        (RAW_KEY[:-1] + "=", False),
        ("da39a3ee5e6b4b0d3255bfef95601890afd80709", False),
        ("DA39A3EE5E6B4B0D3255BFEF95601890AFD80709", False),
        (PASSWORD, False),
    ],
)
def test_a_raw_secret_key_is_40_characters_of_both_cases(text: str, *, expected: bool) -> None:
    """A hexadecimal hash of that length is not taken for one."""
    assert expected is looks_like_secret_key(text)


@pytest.mark.parametrize(
    ("text", "region"),
    [
        (HOST, "us-east-1"),
        (HOST.upper(), "US-EAST-1"),
        ("email-smtp-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("email-smtp.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("email-smtp.eusc-de-east-1.amazonaws.eu", "eusc-de-east-1"),
        ("vpce-0a1b-x-us-east-1a.email-smtp.us-east-1.vpce.amazonaws.com", "us-east-1"),
        (f"tls://{HOST}:465", "us-east-1"),
        (f"[{HOST}]:587", "us-east-1"),
        (f"{HOST}.", "us-east-1"),
    ],
)
def test_a_host_is_found_with_its_region(text: str, region: str) -> None:
    """Public, FIPS, China, the European cloud, a VPC endpoint; in a URL or in brackets."""
    match = SES_HOST.search(text)
    assert match is not None
    assert region == match["region"]


@pytest.mark.parametrize(
    "text",
    [
        "email.us-east-1.amazonaws.com",
        "email-smtp.amazonaws.com",
        "email-smtp.*.amazonaws.com",
        f"my-{HOST}",
        f"{HOST}.attacker.example",
        f"{HOST}x",
        "email-smtp.us-east-1.amazonaws.org",
    ],
)
def test_a_name_that_only_contains_the_host_is_another_host(text: str) -> None:
    """The API host, a pattern, a host of somebody else."""
    assert SES_HOST.search(text) is None
