"""
What every deployer offers.

A deployer reads and plans; it never changes anything itself. The steps of its plan are carried out
by `sesguard.workflow.engine`, in the context that it makes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from sesguard.core.credential import Credential
from sesguard.core.message import Message
from sesguard.workflow.step import Step


class TargetState(StrEnum):
    """What a target's configuration does about the credential."""

    ABSENT = "ABSENT"
    """The program is not installed."""
    PLAINTEXT = "PLAINTEXT"
    """It holds the credential itself."""
    APPLIED = "APPLIED"
    """It asks sesguard, and no copy is left."""
    UNRELATED = "UNRELATED"
    """It does not send through SES."""


@dataclass(frozen=True, slots=True)
class Target:
    """A mail program of this host."""

    name: str
    state: TargetState
    layout: str = ""
    config: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What `apply` would do."""

    steps: Sequence[Step[Any]]
    """Empty when there is nothing to do."""
    diff: str = ""
    """Unified diff of all files, every secret masked."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of `verify`."""

    ok: bool
    message: Message


class Deployer(Protocol):
    """One kind of mail program."""

    name: str
    step_types: Sequence[type[Step[Any]]]
    """All steps that its plans may hold."""

    def find(self) -> Target:
        """Look whether the program is here and what state it is in."""
        ...

    def plan(self) -> Plan:
        """
        Work out the change.

        Raises:
            DeployError: There is nothing that could be changed without a risk.
        """
        ...

    def context(self) -> Any:
        """What the steps work on; each deployer's steps have their own."""
        ...

    def verify(self) -> Sequence[Check]:
        """Look whether an applied change works."""
        ...

    def release(self) -> None:
        """
        Start delivering the mail that was deferred; does not wait for it.

        Raises:
            Error: The program could not be started.
        """
        ...


class CredentialReader(Protocol):
    """Gives the credentials of the vault."""

    def __call__(self) -> Mapping[str, Credential]:
        """
        All credentials by name.

        Raises:
            VaultError: The vault does not open.
        """
        ...
