"""Configurations as they are on hosts: files in vectors/plaintext, described in its README.md."""

from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest

from sesguard.core.plaintext.detect import find_credentials
from sesguard.core.plaintext.interface import OLD_SIGNATURE, RAW_KEY, FoundCredential
from sesguard.core.secret import Secret
from unit.core.generated import HOST, OLD_PASSWORD, PASSWORD, USER, VECTORS
from unit.core.generated import RAW_KEY as RAW

FILES = sorted((VECTORS / "plaintext").glob("*.txt"))
PASSWORDS = {"": (PASSWORD, None), "old": (OLD_PASSWORD, OLD_SIGNATURE), "raw": (RAW, RAW_KEY)}
FIELDS = {
    "{USER}": USER,
    "{PASSWORD}": PASSWORD,
    "{PASSWORD_TAIL}": PASSWORD[1:],
    "{URL_PASSWORD}": quote(PASSWORD, safe=""),
    "{OLD}": OLD_PASSWORD,
    "{RAW}": RAW,
    "{HOST}": HOST,
}


class Vector(NamedTuple):
    """One file."""

    name: str
    expected: list[FoundCredential]
    text: str


def read_vector(path: Path) -> Vector:
    """Take a vector file apart."""
    content = path.read_text("utf-8")
    for field, value in FIELDS.items():
        content = content.replace(field, value)
    header, _, text = content.partition("---\n")
    lines = [line.split(": ", 1) for line in header.splitlines()]
    expected = [_finding(value) for key, value in lines if key == "expect"]
    return Vector(dict(lines)["name"], expected, text)


def _finding(expectation: str) -> FoundCredential:
    place, host, port, *which = expectation.split(", ")
    line, kind = place.split(" ", 1)
    password, problem = PASSWORDS[which[0] if which else ""]
    return FoundCredential(
        USER,
        Secret(password),
        None if host == "-" else host,
        None if port == "-" else int(port),
        int(line),
        kind,
        problem,
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_configuration_gives_exactly_the_expected_findings(path: Path) -> None:
    """User, password, host, port, line, kind and problem are as the header says."""
    vector = read_vector(path)
    assert vector.expected == find_credentials(vector.text, vector.name)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_name_of_the_file_is_not_needed(path: Path) -> None:
    """Standard input has no name: the same credentials are found at the same lines."""
    vector = read_vector(path)
    found = [(item.line, item.username, item.password) for item in find_credentials(vector.text)]
    assert [(item.line, item.username, item.password) for item in vector.expected] == found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_windows_line_ends_make_no_difference(path: Path) -> None:
    """A file that was edited on Windows gives the same findings."""
    vector = read_vector(path)
    assert vector.expected == find_credentials(vector.text.replace("\n", "\r\n"), vector.name)


def test_every_kind_of_parser_has_a_vector() -> None:
    """No form is without a sample of a real configuration."""
    kinds = {item.kind for path in FILES for item in read_vector(path).expected}
    assert {
        "exim client_send",
        "passwd.client",
        "postfix sasl_passwd",
        "postfix static",
        "postfix inline",
        "dotenv",
        "dsn",
        "msmtp",
        "ssmtp",
        "php define",
        "php config",
        "php variable",
        "phpmailer",
        "plain pair",
    } == kinds
