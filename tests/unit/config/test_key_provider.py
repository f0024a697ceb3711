"""Changing vault.key_provider in the text of a settings file."""

import os
import tomllib
from itertools import takewhile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sesguard.config.key_provider import set_key_provider, with_key_provider
from sesguard.config.load import load_settings
from sesguard.config.template import settings_template
from sesguard.errors import SettingsError, SystemFault

PATH = Path("/etc/sesguard/sesguard.toml")


def _edited(text: str) -> str:
    return with_key_provider(text.encode(), PATH, "kms").decode()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('[vault]\nkey_provider = "keyfile" # why\n', '[vault]\nkey_provider = "kms" # why\n'),
        ("[vault]\r\nkey_provider='keyfile'\r\n", '[vault]\r\nkey_provider="kms"\r\n'),
        ('["vault"]\n "key_provider"="a"', '["vault"]\n "key_provider"="kms"'),
        ('vault.key_provider = "keyfile"\n', 'vault.key_provider = "kms"\n'),
        ('vault = { key_provider = "a" }\n', 'vault = { key_provider = "kms" }\n'),
        ('vault = { directory = "/a" }\n', 'vault = { key_provider = "kms", directory = "/a" }\n'),
        ("vault = {}\n", 'vault = { key_provider = "kms" }\n'),
        ('vault.directory = "/a"\n', 'vault.key_provider = "kms"\nvault.directory = "/a"\n'),
        ('[vault]\ndirectory = "/a"\n', '[vault]\nkey_provider = "kms"\ndirectory = "/a"\n'),
        ("[vault] # ours", '[vault] # ours\nkey_provider = "kms"\n'),
        (
            '[vault.kms]\nkey_id = "a"\n',
            '[vault.kms]\nkey_id = "a"\n\n[vault]\nkey_provider = "kms"\n',
        ),
        ("a = 1\r\n", 'a = 1\r\n\r\n[vault]\r\nkey_provider = "kms"\r\n'),
        ("a = 1", 'a = 1\n\n[vault]\nkey_provider = "kms"\n'),
        (
            '# [vault]\n[x]\nkey_provider = "b"\n[vault]\nkey_provider = "c"',
            '# [vault]\n[x]\nkey_provider = "b"\n[vault]\nkey_provider = "kms"',
        ),
        (
            'a = """\n[vault]\nkey_provider = "x"\n"""\n[vault]\na = "é"\n',
            'a = """\n[vault]\nkey_provider = "x"\n"""\n[vault]\nkey_provider = "kms"\na = "é"\n',
        ),
        ('[vault]\nkey_provider = "kms"\n', '[vault]\nkey_provider = "kms"\n'),
    ],
)
def test_however_it_is_written(before: str, after: str) -> None:
    """Table, dotted or inline, there or not: the key is changed, and nothing else."""
    assert after == _edited(before)


def test_every_other_byte_stays(tmp_path: Path) -> None:
    """The commented file of init keeps all of its lines, and the settings say the new provider."""
    path = tmp_path / "sesguard.toml"
    path.write_text(settings_template())
    set_key_provider(path, "kms")

    assert path.read_text().startswith(settings_template())
    assert "kms" == load_settings(path).vault.key_provider


def test_owner_and_mode_stay(tmp_path: Path) -> None:
    """The file belongs to whom it belonged to."""
    path = tmp_path / "sesguard.toml"
    path.write_text('[vault]\nkey_provider = "keyfile"\n')
    path.chmod(0o640)
    if os.getuid() == 0:
        os.chown(path, 1, 2)
    before = path.stat()

    set_key_provider(path, "kms")

    after = path.stat()
    assert (before.st_mode, before.st_uid, before.st_gid) == (
        after.st_mode,
        after.st_uid,
        after.st_gid,
    )


def test_same_provider_writes_nothing(tmp_path: Path) -> None:
    """Where nothing is to be changed the file is not touched."""
    path = tmp_path / "sesguard.toml"
    path.write_text('[vault]\nkey_provider = "kms"\n')
    before = path.stat()

    set_key_provider(path, "kms")

    assert before.st_ino == path.stat().st_ino


def test_link_is_refused(tmp_path: Path) -> None:
    """A link in the place of the settings file is not followed or replaced."""
    (tmp_path / "real.toml").write_text("")
    (tmp_path / "sesguard.toml").symlink_to(tmp_path / "real.toml")

    with pytest.raises(SystemFault):
        set_key_provider(tmp_path / "sesguard.toml", "kms")
    assert (tmp_path / "sesguard.toml").is_symlink()


@pytest.mark.parametrize(
    "text",
    ['[vault]\nkey_provider = """keyfile"""\n', '"va\\u0075lt".directory = "/a"\n'],
)
def test_what_cannot_be_changed_is_refused(text: str) -> None:
    """A spelling that is not known is left to a person, with the line to write."""
    with pytest.raises(SettingsError, match="cannot change") as caught:
        _edited(text)
    assert caught.value.hint is not None
    assert 'write key_provider = "kms"' in caught.value.hint


_LINES = st.sampled_from(
    [
        "[vault]",
        "[vault.kms]",
        "[ x ]",
        'key_provider = "a"',
        "key_provider = 'b' # c",
        'vault.directory = "/a"',
        'vault = { directory = "/a" }',
        "vault = {}",
        'key = """',
        '"""',
        "# [vault]",
        "x = 1",
        "",
    ]
)


@given(st.lists(_LINES, max_size=8))
@example(["x = 1", "[vault.kms]", "[vault]", "# [vault]"])
def test_document_is_the_old_one_with_the_new_value(lines: list[str]) -> None:
    """For any text that is TOML: the document differs in this key, the text in one place."""
    text = "\n".join(lines)
    try:
        document = tomllib.loads(text)
        edited = _edited(text)
    except (tomllib.TOMLDecodeError, SettingsError):
        return
    vault = {**document.get("vault", {}), "key_provider": "kms"}

    assert {**document, "vault": vault} == tomllib.loads(edited)
    start = _shared(text, edited)
    end = _shared(text[start:][::-1], edited[start:][::-1])
    assert len(text) - start - end <= len('"a"')


def _shared(one: str, other: str) -> int:
    """How many characters are the same at the start."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
