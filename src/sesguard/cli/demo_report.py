"""What ``sesguard demo`` found, and whether every promise was kept."""

from dataclasses import asdict, dataclass, field

from sesguard.cli.i18n import _


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """One step of the story."""

    name: str
    ok: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class MessageCount:
    """What became of the application's mails."""

    sent: int = 0
    delivered: int = 0
    duplicated: int = 0
    bounced: int = 0

    @property
    def lost(self) -> int:
        """Accepted by the host and neither delivered nor bounced."""
        return self.sent - self.delivered - self.bounced

    @property
    def ok(self) -> bool:
        """Whether mail was sent, and all of it arrived once."""
        return 0 < self.sent == self.delivered and not (self.duplicated or self.bounced)

    def describe(self) -> str:
        """One line for people."""
        return _("{sent} sent, {delivered} delivered, {lost} lost, {bounced} bounced").format(
            sent=self.sent, delivered=self.delivered, lost=self.lost, bounced=self.bounced
        )


@dataclass(frozen=True, slots=True)
class RotationFigures:
    """The rotation under load."""

    messages: MessageCount = field(default_factory=MessageCount)
    seconds: float = 0.0
    """The whole command."""


@dataclass(frozen=True, slots=True)
class PanicFigures:
    """The leak, and the answer to it."""

    messages: MessageCount = field(default_factory=MessageCount)
    """The application's own mails, which were held meanwhile."""
    contained_seconds: float = 0.0
    """From the start of the command until SES refused the key for the first time."""
    total_seconds: float = 0.0
    """The whole command."""
    thief_accepted_before: int = 0
    thief_accepted_after: int = 0
    """Mails of the thief that SES took after the containment was proved."""


@dataclass(frozen=True, slots=True)
class RelayFigures:
    """The sites that send through the relay."""

    sent: int = 0
    delivered: int = 0
    spoofed_accepted: int = 0
    """Mails of a site that SES took in another's name."""
    apps: int = 0

    @property
    def ok(self) -> bool:
        """Whether mail was sent, all of it arrived, and none in another's name."""
        return 0 < self.sent == self.delivered and not self.spoofed_accepted


@dataclass(slots=True)
class DemoReport:
    """How the story went."""

    key_provider: str = "keyfile"
    steps: list[StepOutcome] = field(default_factory=list)
    messages: MessageCount = field(default_factory=MessageCount)
    copies_before: int = 0
    copies_after: int = 0
    undo_identical: bool = False
    rotation: RotationFigures = field(default_factory=RotationFigures)
    panic: PanicFigures = field(default_factory=PanicFigures)
    relay: RelayFigures = field(default_factory=RelayFigures)
    left_out: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every promise was kept."""
        counts = (self.messages, self.rotation.messages, self.panic.messages)
        return (
            all(step.ok for step in self.steps)
            and all(count.ok for count in counts)
            and self.copies_before > 0
            and not self.copies_after
            and self.undo_identical
            and self.panic.thief_accepted_before > 0
            and not self.panic.thief_accepted_after
            and self.relay.ok
        )

    def as_json(self) -> dict[str, object]:
        """The JSON object that docs/reference/commands.md describes."""
        rotated, panic = self.rotation, self.panic
        return {
            "version": 1,
            "ok": self.ok,
            "key_provider": self.key_provider,
            "steps": [{**asdict(step), "seconds": round(step.seconds, 3)} for step in self.steps],
            "messages": {
                "sent": self.messages.sent,
                "delivered": self.messages.delivered,
                **_losses(self.messages),
            },
            "plaintext_copies_before": self.copies_before,
            "plaintext_copies_after": self.copies_after,
            "undo_identical": self.undo_identical,
            "rotation": {**_losses(rotated.messages), "seconds": round(rotated.seconds, 3)},
            "panic": {
                "contained_seconds": round(panic.contained_seconds, 3),
                "total_seconds": round(panic.total_seconds, 3),
                "thief_accepted_after": panic.thief_accepted_after,
            },
            "relay": {
                "sent": self.relay.sent,
                "delivered": self.relay.delivered,
                "lost": self.relay.sent - self.relay.delivered,
                "spoofed_accepted": self.relay.spoofed_accepted,
                "apps": self.relay.apps,
            },
            "left_out": list(self.left_out),
        }


def _losses(count: MessageCount) -> dict[str, int]:
    return {"lost": count.lost, "duplicated": count.duplicated, "bounced": count.bounced}
