"""A change of the key from any provider to any other, killed or out of disk space at every step."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rigs.crash import (
    count_points,
    full_disk_at,
    killed_at,
    points_before_writes,
    points_of,
)
from rigs.key_providers import PAIRS, SETTINGS, SealedHost, sealed_host
from sesguard.core.credential import Credential
from sesguard.errors import VaultError

Change = Callable[[Credential], Credential]


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_killed_change_opens_with_exactly_one_provider(
    tmp_path: Path, rotate: Change, source: str, target: str
) -> None:
    """Killed at any step, one of the two opens the vault, and the same command finishes."""
    fresh = sealed_host(tmp_path / "fresh", source, rotate)
    rehearsal = fresh.copied(tmp_path / "rehearsal")
    expected, entries = fresh.vault().read(), fresh.entries()
    points = count_points(lambda: rehearsal.rewrap(target))
    moved = []

    for point in range(1, points + 1):
        host = fresh.copied(tmp_path / f"host-{point}")
        assert killed_at(lambda host=host: host.rewrap(target), point)  # type: ignore[misc]

        opened = host.openers(source, target)
        assert 1 == len(opened)
        [(kind, found)] = opened.items()
        moved.append(found.generation)
        assert expected.credentials == found.credentials
        assert found == host.vault(kind).read_last_good()
        # What is left of the first attempt is in no one's way.
        if point % 2:
            host.vault(kind).update("later", rotate)
        host.rewrap(target)

        _require_moved(host, source, target)
        assert expected.credentials.items() <= host.vault().read().credentials.items()
        assert entries == host.entries()

    assert {4, 5} == set(moved)
    assert sorted(moved) == moved


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_full_disk_changes_nothing_or_is_finished_later(
    tmp_path: Path, rotate: Change, source: str, target: str
) -> None:
    """Without disk space from any step on, one provider opens the vault; later it is finished."""
    fresh = sealed_host(tmp_path / "fresh", source, rotate)
    rehearsal = fresh.copied(tmp_path / "rehearsal")
    points = points_before_writes(points_of(lambda: rehearsal.rewrap(target)))

    for point in points:
        host = fresh.copied(tmp_path / f"host-{point}")
        full_disk_at(lambda host=host: host.rewrap(target), point)  # type: ignore[misc]

        assert 1 == len(host.openers(source, target))
        host.rewrap(target)
        _require_moved(host, source, target)


def _require_moved(host: SealedHost, source: str, target: str) -> None:
    """All is under the target, the old key is not needed, and nothing is left over."""
    assert SETTINGS.format(target) == host.config.read_text()
    if source != target:
        host.forget(source)
        with pytest.raises(VaultError):
            host.vault(source).read()
    assert all(check.ok for check in host.vault().verify())
    assert {"vault", "vault.previous", "mark", "lock"} == {
        path.name for path in (host.directory / "vault").iterdir()
    }
    assert not list(host.directory.rglob("*.next"))
    assert not list((host.directory / target).rglob("*-tmp-*")), "a hidden copy of a key"
