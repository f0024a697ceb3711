"""
Rotation and panic in any order, with faults of AWS and kills in between.

After every rule hold the invariants of the goals G4 and G5: the vault opens; no IAM user has more
than two keys; CURRENT works unless mail is held; no stolen key that was proved dead sends again.
After every rule that ends without an unfinished run, each active key is in the vault.
"""

import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from rigs.rotating_host import NAME, RotatingHost, make_rotating_host, one_attempt
from rigs.sandbox import Login, SandboxRig
from sesguard.aws.iam import IamKeys, KeyStatus
from sesguard.errors import CheckFailed, CredentialError, Error, RolledBack
from sesguard.sandbox.model import ApiFaultKind

CALLS = st.sampled_from(
    ["iam:CreateAccessKey", "iam:UpdateAccessKey", "iam:DeleteAccessKey", "iam:*Key*",
     "iam:PutUserPolicy", "iam:CreateUser", "iam:*"]
)  # fmt: skip
KINDS = st.sampled_from(list(ApiFaultKind))
COUNTS = st.sampled_from([1, 2, None])
AFTER = st.integers(0, 6)


class Machine(RuleBasedStateMachine):
    """One host; `rig` is set by the test."""

    rig: ClassVar[SandboxRig]

    def __init__(self) -> None:
        super().__init__()
        self.scratch = tempfile.TemporaryDirectory()
        self.host = make_rotating_host(Path(self.scratch.name) / "host", self.rig)
        self.users = {self.host.user}
        self.dead: list[Login] = []
        self.well = True
        self.unfinished_panic: str | None = None

    def teardown(self) -> None:
        self.rig.client.clear_api_faults()
        self.scratch.cleanup()

    @initialize()
    def begin(self) -> None:
        """All is well."""
        self.rig.client.clear_api_faults()

    @rule()
    def rotate(self) -> None:
        """``sesguard rotate``."""
        self._try(self.host.rotate)

    @rule()
    def resume(self) -> None:
        """``sesguard rotate --resume``."""
        self._try(self.host.resume)

    @rule()
    def retire(self) -> None:
        """The daily pass."""
        self._try(self.host.retire)

    @rule()
    def panic(self) -> None:
        """``sesguard panic`` for the key in use, or the response that is not over."""
        self._panic(self._leaked())

    @rule(call=CALLS, kind=KINDS, count=COUNTS, after=AFTER)
    def fault(self, call: str, kind: ApiFaultKind, count: int | None, after: int) -> None:
        """Something is wrong at AWS from now on."""
        self.host.set_fault(call, kind, count=count, after=after)
        self.well = False

    @rule(after=AFTER, panics=st.booleans())
    def killed(self, after: int, panics: bool) -> None:
        """A command is killed after so many calls of AWS."""
        leaked = self._leaked()
        pid = os.fork()
        if pid == 0:
            _die_after(self.host, after, leaked if panics else None)
        os.waitpid(pid, 0)
        if panics and leaked is not None:
            self.unfinished_panic = leaked

    @precondition(lambda self: not self.well)
    @rule()
    def mend(self) -> None:
        """AWS is well again, and the commands are run again: everything converges."""
        self.host.clear_faults()
        self.well = True
        self._converge()

    @invariant()
    def is_sound(self) -> None:
        """See the module docstring."""
        iam = IamKeys(one_attempt(self.rig))
        faults = self.rig.client.status().api_faults
        self.rig.client.clear_api_faults()
        try:
            credential = self.host.credential()
            self.users |= {user for r in self.host.incidents() for user in r.new_users.values()}
            for user in self.users:
                keys = iam.list_access_keys(user) if self._exists(user) else ()
                assert len(keys) <= 2
                if self._at_rest():
                    active = {k.access_key_id for k in keys if k.status is KeyStatus.ACTIVE}
                    assert all(credential.of_key(key) is not None for key in active)
            if self.host.current() is not None:
                assert self.host.logs_in()
            for stolen in self.dead:
                assert not self.host.can_send(stolen)
        finally:
            self.rig.client.set_api_faults(*faults)

    def _exists(self, user: str) -> bool:
        names = [u["UserName"] for u in self.rig.aws("iam").list_users(MaxItems=1000)["Users"]]
        return user in names

    def _at_rest(self) -> bool:
        runs = self.host.rotation().history(NAME)
        return self.unfinished_panic is None and all(run.state.finished for run in runs)

    def _leaked(self) -> str | None:
        if self.unfinished_panic is not None:
            return self.unfinished_panic
        current = self.host.current()
        return None if current is None else current.username

    def _panic(self, leaked: str | None) -> None:
        if leaked is None:
            return
        version = self.host.credential().of_key(leaked)
        self.unfinished_panic = leaked
        result = self._try(lambda: self.host.panic(leaked))
        if result is None:
            self.unfinished_panic = None
        proved = any(r.access_key_id == leaked and r.proved_at for r in self.host.incidents())
        if proved and version is not None:
            self.dead.append(self.host.login(version))

    def _try(self, act: Callable[[], object]) -> Error | None:
        """Run a command; only errors that are meant for people may come out."""
        try:
            act()
        except Error as error:
            return error
        return None

    def _converge(self) -> None:
        if self.unfinished_panic is not None:
            self._panic(self.unfinished_panic)
            assert self.unfinished_panic is None
        problem = self._try(self.host.resume)
        assert problem is None or isinstance(problem, RolledBack | CheckFailed), repr(problem)
        assert self._at_rest()
        assert self.host.current() is not None
        problem = self._try(self.host.rotate)
        assert not isinstance(problem, CredentialError), repr(problem)
        assert problem is None, repr(problem)


def _die_after(host: RotatingHost, calls: int, leaked: str | None) -> None:
    """In a child: run a command that is killed at its next call of AWS after so many."""
    left = calls

    def count(**_rest: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    client = one_attempt(host.rig).iam_once
    # A connection is not to be shared with the parent process.
    client.close()
    client.meta.events.register("before-call", count)
    try:
        host.rotate() if leaked is None else host.panic(leaked)
    finally:
        os._exit(1)


@pytest.mark.timeout(170)
def test_any_order_of_commands_faults_and_kills(rig: SandboxRig) -> None:
    """See the module docstring."""
    Machine.rig = rig
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=12,
            stateful_step_count=8,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
