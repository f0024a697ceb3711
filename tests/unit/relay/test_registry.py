"""What is known about apps beside the settings."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from sesguard.core.secret import Secret
from sesguard.errors import Error, SystemFault, UsageError
from sesguard.relay.registry import TOKEN, AppRegistry


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the registry is."""
    return tmp_path / "apps.json"


@pytest.fixture
def problems() -> list[Error]:
    """What was reported."""
    return []


@pytest.fixture
def registry(path: Path, problems: list[Error]) -> AppRegistry:
    """The relay's view of it."""
    return AppRegistry(path, problems.append)


@pytest.fixture
def admin(path: Path) -> AppRegistry:
    """The command line's view of the same file."""
    return AppRegistry(path)


def test_missing_file(registry: AppRegistry, problems: list[Error]) -> None:
    """Without a file no app has tokens or is suspended."""
    assert not registry.suspended("shop")
    assert not registry.verify("shop", Secret("x"))
    assert {} == registry.entries()
    assert [] == problems


def test_token(registry: AppRegistry, admin: AppRegistry, path: Path) -> None:
    """A new token counts at once, for its app only, and only its hash is kept."""
    token = admin.add_token("shop", "cron job")
    other = admin.add_token("blog")

    assert TOKEN.fullmatch(token.reveal())
    assert registry.verify("shop", token)
    assert not registry.verify("blog", token)
    assert not registry.verify("nobody", token)
    assert registry.verify("blog", other)
    secret = token.reveal().rsplit("_", 1)[1]
    assert secret not in path.read_text()
    [kept] = registry.entries()["shop"].tokens
    assert ("cron job", token.reveal().split("_")[1]) == (kept.label, kept.id)


@pytest.mark.parametrize(
    "change",
    [
        lambda token: "",
        lambda token: token[:-1],
        lambda token: token + "x",
        lambda token: token.upper(),
        lambda token: token.split("_", 2)[2],
        lambda token: token + "\ud800",
        lambda token: "é" * 1000,
    ],
)
def test_wrong_token(
    registry: AppRegistry, admin: AppRegistry, change: Callable[[str], str]
) -> None:
    """Whatever is not the whole token is wrong."""
    token = admin.add_token("shop")

    assert not registry.verify("shop", Secret(change(token.reveal())))


def test_several_tokens(registry: AppRegistry, admin: AppRegistry) -> None:
    """Each token of an app is right until it is revoked."""
    first, second = admin.add_token("shop"), admin.add_token("shop")
    first_id = first.reveal().split("_")[1]

    assert registry.verify("shop", first)
    assert registry.verify("shop", second)
    assert (first_id,) == admin.revoke("shop", first_id)
    assert not registry.verify("shop", first)
    assert registry.verify("shop", second)


def test_revoke_all(registry: AppRegistry, admin: AppRegistry, path: Path) -> None:
    """All tokens of an app go, those of others stay, and nothing is left of it in the file."""
    tokens = [admin.add_token("shop") for _ in range(3)]
    other = admin.add_token("blog")

    assert 3 == len(admin.revoke("shop", None))
    assert {False} == {registry.verify("shop", token) for token in tokens}
    assert registry.verify("blog", other)
    assert "shop" not in path.read_text()
    assert () == admin.revoke("shop", None)


def test_revoke_unknown_token(admin: AppRegistry) -> None:
    """A token that the app does not have is an error."""
    admin.add_token("shop")

    with pytest.raises(UsageError, match="app shop has no token deadbeef"):
        admin.revoke("shop", "deadbeef")
    assert 1 == len(admin.entries()["shop"].tokens)


def test_suspend_and_resume(registry: AppRegistry, admin: AppRegistry) -> None:
    """A suspension counts from the next question on, and so does its end."""
    admin.suspend("shop", "spam")

    assert registry.suspended("shop")
    assert not registry.suspended("blog")
    assert admin.resume("shop")
    assert not registry.suspended("shop")
    assert not admin.resume("shop")


def test_suspend_a_table(registry: AppRegistry, admin: AppRegistry) -> None:
    """A suspended table suspends each of its apps; resuming one of them changes nothing."""
    admin.suspend("cpanel:*")

    assert registry.suspended("cpanel:alice")
    assert not registry.suspended("cpanel")
    assert not registry.suspended("cpanelx:alice")
    assert not admin.resume("cpanel:alice")
    assert registry.suspended("cpanel:alice")


def test_suspend_one_of_a_table(registry: AppRegistry, admin: AppRegistry) -> None:
    """One app of a table can be suspended alone."""
    admin.suspend("cpanel:alice")

    assert registry.suspended("cpanel:alice")
    assert not registry.suspended("cpanel:bob")


def test_suspension_keeps_tokens(registry: AppRegistry, admin: AppRegistry) -> None:
    """Suspending changes nothing about tokens."""
    token = admin.add_token("shop")
    admin.suspend("shop")

    assert registry.verify("shop", token)
    entry = admin.entries()["shop"]
    assert entry.suspended is not None
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", entry.suspended.since)


DAMAGE = [
    b"",
    b"{",
    b"[]",
    b'{"version": 2, "apps": {}}',
    b'{"version": 1, "apps": {"shop": {"tokens": [{"id": "a"}]}}}',
    b'{"version": 1, "apps": {"s": {"tokens": [{"id":"","label":"","created":"","sha256":""}]}}}',
    b'{"version": 1, "apps": {}, "more": 1}',
    b"\xff\xfe",
]


@pytest.mark.parametrize("content", DAMAGE)
def test_damage_later(
    registry: AppRegistry, admin: AppRegistry, path: Path, problems: list[Error], content: bytes
) -> None:
    """After damage what was read last counts on; it is reported once, and repaired by a copy."""
    token = admin.add_token("shop")
    admin.suspend("blog")
    good = path.read_bytes()
    assert registry.suspended("blog")

    path.write_bytes(content)

    assert registry.suspended("blog")
    assert registry.verify("shop", token)
    assert 1 == len(problems)
    assert "is damaged" in str(problems[0])
    path.write_bytes(good)
    assert admin.resume("blog")
    assert not registry.suspended("blog")
    assert 1 == len(problems)


@pytest.mark.parametrize("content", DAMAGE)
def test_damage_at_the_start(
    registry: AppRegistry, path: Path, problems: list[Error], content: bytes
) -> None:
    """A registry that was never read is an error each time and reported once."""
    path.write_bytes(content)

    for _ in range(3):
        with pytest.raises(SystemFault, match="is damaged"):
            registry.suspended("shop")
        with pytest.raises(SystemFault, match="is damaged"):
            registry.verify("shop", Secret("x"))
    assert 1 == len(problems)


def test_damaged_file_is_not_changed(admin: AppRegistry, path: Path) -> None:
    """The command line does not write over what it cannot read."""
    path.write_bytes(b"{")

    with pytest.raises(SystemFault, match="is damaged"):
        admin.add_token("shop")
    assert b"{" == path.read_bytes()


def test_link_in_place_of_the_file(registry: AppRegistry, path: Path, tmp_path: Path) -> None:
    """A symbolic link is not followed."""
    (tmp_path / "elsewhere").write_text('{"version": 1, "apps": {}}')
    path.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(SystemFault, match="symbolic link"):
        registry.suspended("shop")


def test_failed_change(admin: AppRegistry, tmp_path: Path) -> None:
    """Where the file cannot be written, there is no token."""
    with pytest.raises(SystemFault):
        AppRegistry(tmp_path / "none" / "apps.json").add_token("shop")


def test_mode_and_group(path: Path) -> None:
    """The file may be read by its group and by nobody else."""
    group = os.getgid()
    AppRegistry(path, group=group).add_token("shop")

    assert (0o640, group) == (path.stat().st_mode & 0o777, path.stat().st_gid)


def test_writers_at_one_time(admin: AppRegistry, path: Path) -> None:
    """Of tokens that several processes add at a time none is lost."""
    children = []
    for index in range(4):
        pid = os.fork()
        if pid == 0:
            for _ in range(5):
                AppRegistry(path).add_token(f"app{index}")
            os._exit(0)
        children.append(pid)
    assert {0} == {os.waitpid(pid, 0)[1] for pid in children}

    assert [5, 5, 5, 5] == [len(entry.tokens) for entry in admin.entries().values()]
