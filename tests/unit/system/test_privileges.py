"""Users, and giving rights up for good."""

import ctypes
import os
import pwd
import resource
import socket
import tempfile
from pathlib import Path

import pytest

from sesguard.errors import SystemFault
from sesguard.system.privileges import (
    _PR_SET_DUMPABLE,
    User,
    _prctl,
    acting_as_owner,
    current_user,
    drop_rights,
    find_user,
    group_name,
    harden_process,
    is_dumpable,
    is_root,
    require_user,
)
from unit.system.children import NOBODY, in_child

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
_ENTRY = pwd.getpwuid(NOBODY)
NOBODY_USER = User(_ENTRY.pw_name, NOBODY, _ENTRY.pw_gid)


def test_a_user_is_found_by_name_or_number() -> None:
    """With its primary group."""
    assert NOBODY_USER == find_user(NOBODY_USER.name) == find_user(str(NOBODY))
    assert User("root", 0, 0) == require_user("root")


@pytest.mark.parametrize("name", ["", "no-such-user", "4294000000", "9" * 30, "a\0b", "-1", "٣"])
def test_no_such_user_is_none_or_a_fault(name: str) -> None:
    """Whatever a settings file says."""
    assert find_user(name) is None
    with pytest.raises(SystemFault, match="there is no user"):
        require_user(name)


def test_groups_have_names_or_numbers() -> None:
    """A group without an entry is named by its number."""
    assert ("root", "4294000000") == (group_name(0), group_name(4294000000))


@AS_ROOT
def test_the_present_user_may_have_no_name() -> None:
    """A container's user, for one."""

    def act() -> object:
        os.setresgid(54321, 54321, 54321)
        os.setresuid(54321, 54321, 54321)
        return current_user(), is_root()

    assert (User("root", 0, 0), True) == (current_user(), is_root())
    assert "(User(name='54321', uid=54321, gid=54321), False)" == in_child(act)


@AS_ROOT
def test_dropped_rights_cannot_be_taken_back() -> None:
    """No id of root is left, no group, no capability; every way back is refused."""

    def act() -> object:
        os.setgroups([0, 1, 2])
        drop_rights(NOBODY_USER)
        for call in (
            lambda: os.setuid(0),
            lambda: os.setresuid(-1, 0, -1),
            lambda: os.setresuid(-1, -1, 0),
            lambda: os.setgid(0),
            lambda: os.setgroups([0]),
            lambda: os.chown("/etc/passwd", 0, 0),
            lambda: Path("/etc/shadow").read_bytes(),
        ):
            with pytest.raises(PermissionError):
                call()
        status = Path("/proc/self/status").read_text().splitlines()
        caps = [
            line.split()[1] for line in status if line.startswith(("CapEff", "CapPrm", "CapAmb"))
        ]
        return os.getresuid(), os.getresgid(), os.getgroups(), {int(cap, 16) for cap in caps}

    uids, gids = (NOBODY,) * 3, (NOBODY_USER.gid,) * 3
    assert f"({uids}, {gids}, [], {{0}})" == in_child(act)


@AS_ROOT
def test_the_right_to_low_ports_may_be_kept_and_nothing_else() -> None:
    """One capability, that no program we start inherits; the way back is closed as ever."""

    def act() -> object:
        drop_rights(NOBODY_USER, keep_low_ports=True)
        with pytest.raises(PermissionError):
            os.setuid(0)
        with pytest.raises(PermissionError):
            os.chown("/etc/passwd", 0, 0)
        with socket.socket() as listener:
            listener.bind(("127.0.3.1", 1))
        return _capabilities()

    kept = 1 << 10
    expected = {"CapInh": 0, "CapPrm": kept, "CapEff": kept, "CapAmb": 0}
    assert str(expected) == in_child(act)


@AS_ROOT
def test_a_right_that_root_does_not_have_is_not_kept() -> None:
    """Such as within a unit that bounds its capabilities: that is no fault."""

    def act() -> object:
        libc = ctypes.CDLL(None)
        # Effective and permitted: CAP_SETGID and CAP_SETUID alone.
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        assert 0 == libc.capset(header, (ctypes.c_uint32 * 6)(0xC0, 0xC0, 0, 0, 0, 0))
        drop_rights(NOBODY_USER, keep_low_ports=True)
        return _capabilities()

    expected = dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapAmb"), 0)
    assert str(expected) == in_child(act)


def _capabilities() -> dict[str, int]:
    lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    return {
        name.rstrip(":"): int(value, 16)
        for name, value, *_ in (line for line in lines if len(line) == 2)
        if name.startswith("Cap") and name != "CapBnd:"
    }


@AS_ROOT
def test_only_root_can_become_somebody_else() -> None:
    """A second time, or as an unprivileged user, it is a fault."""

    def act() -> None:
        drop_rights(NOBODY_USER)
        drop_rights(User("root", 0, 0))

    said = in_child(act)
    assert "SystemFault: cannot become user root: Operation not permitted" == said


@AS_ROOT
def test_becoming_root_as_root_changes_nothing() -> None:
    """Settings may name root; there is no way back to test then."""

    def act() -> object:
        drop_rights(User("root", 0, 0))
        return os.getresuid()

    assert "(0, 0, 0)" == in_child(act)


@AS_ROOT
def test_rights_that_can_be_taken_back_are_a_fault() -> None:
    """Where the kernel keeps capabilities over the change of user, it is noticed."""

    def act() -> None:
        # prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP): ids change, capabilities stay.
        assert ctypes.CDLL(None).prctl(28, 1 << 2, 0, 0, 0) == 0
        drop_rights(NOBODY_USER)

    assert "SystemFault: rights were dropped but can be taken back" == in_child(act)


def test_a_hardened_process_leaves_no_core_and_gains_no_rights() -> None:
    """Not dumpable, no core file, and no new privileges by exec."""

    def act() -> object:
        # A test before may have been another user for a while, which takes the flag away.
        _prctl(_PR_SET_DUMPABLE, 1)
        before = is_dumpable()
        harden_process()
        status = Path("/proc/self/status").read_text()
        return (
            before,
            is_dumpable(),
            resource.getrlimit(resource.RLIMIT_CORE),
            "NoNewPrivs:\t1" in status,
        )

    assert "(True, False, (0, 0), True)" == in_child(act)


@AS_ROOT
def test_the_memory_of_a_hardened_process_is_closed_to_its_own_user() -> None:
    """Another process of the same user cannot read its memory or environment."""

    def act() -> object:
        drop_rights(NOBODY_USER)
        harden_process()
        pid = os.getpid()

        def look() -> list[str]:
            refused = []
            for name in ("mem", "environ", "maps", "fd"):
                try:
                    path = f"/proc/{pid}/{name}"
                    os.listdir(path) if name == "fd" else open(path, "rb").close()
                except PermissionError:
                    refused.append(name)
            return refused

        return in_child(look)

    assert "['mem', 'environ', 'maps', 'fd']" == in_child(act)


@AS_ROOT
def test_a_change_of_user_resets_the_flag_so_it_is_set_after() -> None:
    """What the module says about the order of the two calls."""

    def act() -> object:
        harden_process()
        drop_rights(NOBODY_USER)
        after_change = is_dumpable()
        harden_process()
        return after_change, is_dumpable()

    assert in_child(act).endswith("False)")


def test_a_kernel_that_refuses_is_a_fault() -> None:
    """The option's number and the kernel's reason."""
    from sesguard.system import privileges  # noqa: PLC0415 - the private call is what is tested

    with pytest.raises(SystemFault, match=r"prctl\(4\) failed: Invalid argument"):
        privileges._prctl(4, 99)


@AS_ROOT
def test_root_makes_files_as_the_owner_of_another_and_is_root_again() -> None:
    """Also when the block fails; for root's own file it stays root."""

    def fail(directory: Path) -> None:
        with acting_as_owner(directory / "theirs"):
            (directory / "new").touch()
            assert [] == os.getgroups()
            raise KeyError

    before = (os.geteuid(), os.getegid(), os.getgroups())
    # The directories above tmp_path are root's alone.
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o777)
        (directory / "theirs").touch()
        os.chown(directory / "theirs", NOBODY, NOBODY_USER.gid)
        with pytest.raises(KeyError):
            fail(directory)
        assert before == (os.geteuid(), os.getegid(), os.getgroups())
        with acting_as_owner(directory):
            assert is_root()
        made = (directory / "new").stat()
    assert (NOBODY, NOBODY_USER.gid) == (made.st_uid, made.st_gid)
