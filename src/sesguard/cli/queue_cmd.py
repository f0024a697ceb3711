"""``sesguard queue``: the mail that waits in the queue of the relay."""

import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

import click

from sesguard.cli import audit
from sesguard.cli.context import App, pass_app
from sesguard.cli.i18n import _
from sesguard.cli.output import visible
from sesguard.errors import CheckFailed, UsageError
from sesguard.relay.queue_desk import IN_THE_QUEUE, QueueDesk, QueueEntry
from sesguard.relay.spool_records import State

JSON_VERSION: Final = 1

_json_option = click.option("--json", "as_json", is_flag=True, help=_("Write JSON."))
_app_option = click.option("--app", "of_app", metavar=_("NAME"), help=_("Only that of this app."))
_IDS = click.argument("ids", metavar=_("ID..."), nargs=-1)


@click.group(name="queue", help=_("The mail that waits in the queue of the relay."))
def command() -> None:
    """Group of the commands below."""


@command.command(name="list", help=_("Show what waits, the oldest first."))
@_app_option
@click.option("--held", "only_held", is_flag=True, help=_("Only what waits for a person."))
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=100,
    metavar=_("N"),
    help=_("How many at most; default 100."),
)
@_json_option
@pass_app
def list_messages(app: App, of_app: str | None, only_held: bool, limit: int, as_json: bool) -> None:
    """Print the messages, without their text."""
    entries = _desk(app).list_messages(app=of_app, only_held=only_held, limit=limit)
    if as_json:
        messages = [_entry_json(entry) for entry in entries]
        app.output.print_json({"version": JSON_VERSION, "messages": messages})
        return
    columns = (
        _("ID"),
        _("RECEIVED"),
        _("STATE"),
        _("APP"),
        _("FROM"),
        _("TO"),
        _("BYTES"),
        _("REASON"),
    )
    app.output.table(columns, [_row(entry) for entry in entries])


@command.command(help=_("Show one message."))
@click.argument("message_id", metavar=_("ID"))
@click.option("--body", is_flag=True, help=_("Write the message itself, and nothing else."))
@_json_option
@pass_app
def show(app: App, message_id: str, body: bool, as_json: bool) -> None:
    """Print what is known of a message, or the message."""
    if body and as_json:
        raise UsageError("the message itself is not JSON", hint="leave out --json or --body")
    desk = _desk(app)
    entry = desk.find(message_id)
    if entry is None:
        raise UsageError(
            "there is no message {id} in the queue", hint="run: sesguard queue list", id=message_id
        )
    if body:
        audit.record(app.settings.state_directory, "queue-show-body", message=message_id)
        with desk.opened_body(message_id) as pieces:
            for piece in pieces:
                sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    elif as_json:
        app.output.print_json({"version": JSON_VERSION, "message": _entry_json(entry)})
    else:
        for name, text in _lines(entry):
            app.output.data(visible(f"{name}: {text}"))


@command.command(help=_("Let held messages go: some, all of an app, or all."))
@_IDS
@_app_option
@click.option("--all-held", "every", is_flag=True, help=_("Everything that is held."))
@pass_app
def release(app: App, ids: Sequence[str], of_app: str | None, every: bool) -> None:
    """Queue messages that wait for a person."""
    if bool(ids) + (of_app is not None) + every != 1:
        raise UsageError("name messages, or --app, or --all-held", hint="run: sesguard queue list")
    desk, ids = _desk(app), tuple(dict.fromkeys(ids))
    if not ids:
        _record(app, "queue-release", of_app, desk.count([State.HELD], of_app))
        count = desk.release_all(of_app)
    else:
        audit.record(app.settings.state_directory, "queue-release", messages=list(ids))
        count = len(desk.release(ids))
        if count < len(ids):
            raise CheckFailed(
                "{count} of {total} messages were released; the others are not held",
                hint="run: sesguard queue list --held",
                count=count,
                total=len(ids),
            )
    app.output.ok(_("{count} messages go out now").format(count=count))


@command.command(help=_("Remove messages. Neither sender nor recipient hears of it."))
@_IDS
@_app_option
@click.option("--yes", is_flag=True, help=_("Do not ask."))
@pass_app
def drop(app: App, ids: Sequence[str], of_app: str | None, yes: bool) -> None:
    """Remove messages for good."""
    if bool(ids) + (of_app is not None) != 1:
        raise UsageError("name the messages to drop, or --app", hint="run: sesguard queue list")
    if of_app is not None:
        count = _drop_all(app, of_app, yes)
    else:
        count = _drop_some(app, tuple(dict.fromkeys(ids)), yes)
    app.output.ok(_("{count} messages are removed").format(count=count))


def _drop_all(app: App, of_app: str, yes: bool) -> int:
    desk = _desk(app)
    count = desk.count(IN_THE_QUEUE, of_app)
    question = _("Remove all {count} messages of the app {app} for good?")
    app.output.confirm(question.format(count=count, app=of_app), assume_yes=yes)
    _record(app, "queue-drop", of_app, count)
    return desk.drop_all(of_app)


def _drop_some(app: App, ids: Sequence[str], yes: bool) -> int:
    question = _("Remove {count} messages for good?").format(count=len(ids))
    app.output.confirm(question, assume_yes=yes)
    audit.record(app.settings.state_directory, "queue-drop", messages=list(ids))
    count = len(_desk(app).drop(ids))
    if count < len(ids):
        raise CheckFailed(
            "{count} of {total} messages were removed; the others are gone, or are being sent",
            hint="run: sesguard queue list",
            count=count,
            total=len(ids),
        )
    return count


@command.command(help=_("Try everything that waits now, whatever its next attempt was to be."))
@_app_option
@pass_app
def flush(app: App, of_app: str | None) -> None:
    """Make waiting messages due; the daemon sees it within five seconds."""
    desk = _desk(app)
    _record(app, "queue-flush", of_app, desk.count([State.QUEUED], of_app))
    count = desk.flush(of_app)
    app.output.ok(_("{count} messages are due now").format(count=count))


def _record(app: App, act: str, of_app: str | None, count: int) -> None:
    """Write down what is about to be done to all messages of an app, or of all apps."""
    audit.record(app.settings.state_directory, act, app=of_app or "*", count=count)


def _desk(app: App) -> QueueDesk:
    return QueueDesk(app.settings.relay.spool_directory)


def _entry_json(entry: QueueEntry) -> dict[str, object]:
    is_due = entry.state is State.QUEUED
    return {
        "id": entry.public_id,
        "state": entry.state.value,
        "app": entry.origin.app,
        "uid": entry.origin.uid,
        "credential": entry.origin.credential_id,
        "sender": entry.envelope.sender,
        "recipients": list(entry.envelope.addresses),
        "bytes": entry.size,
        "received_at": _iso(entry.received_at),
        "released_at": None if entry.released_at is None else _iso(entry.released_at),
        "next_attempt_at": _iso(entry.next_attempt) if is_due else None,
        "attempts": entry.attempts,
        "possible_duplicate": entry.maybe_sent,
        "hold_reason": entry.hold_reason,
        "last_reply": entry.last_reply or None,
    }


def _lines(entry: QueueEntry) -> Iterator[tuple[str, object]]:
    yield _("id"), entry.public_id
    yield _("state"), _state_words(entry.state)
    yield _("app"), entry.origin.app
    yield _("user"), "-" if entry.origin.uid is None else entry.origin.uid
    yield _("credential"), entry.origin.credential_id or "-"
    yield _("from"), f"<{entry.envelope.sender}>"
    for address in entry.envelope.addresses:
        yield _("to"), f"<{address}>"
    yield _("bytes"), entry.size
    yield _("received"), _local(entry.received_at)
    if entry.released_at is not None:
        yield _("released"), _local(entry.released_at)
    if entry.state is State.QUEUED:
        yield _("next attempt"), _local(entry.next_attempt)
    yield _("attempts"), entry.attempts
    if entry.maybe_sent:
        yield _("note"), _("an earlier attempt may have delivered it")
    if entry.hold_reason is not None:
        yield _("held because"), entry.hold_reason
    if entry.last_reply:
        yield _("last reply"), entry.last_reply


def _row(entry: QueueEntry) -> tuple[str, ...]:
    first, *others = entry.envelope.addresses or ("?",)
    is_held = entry.state is State.HELD
    return (
        entry.public_id,
        _local(entry.received_at),
        _state_words(entry.state),
        entry.origin.app,
        entry.envelope.sender or "<>",
        f"{first} +{len(others)}" if others else first,
        str(entry.size),
        (entry.hold_reason if is_held else entry.last_reply) or "-",
    )


def _state_words(state: State) -> str:
    match state:
        case State.QUEUED:
            return _("waits")
        case State.SENDING:
            return _("is being sent")
        case State.HELD:
            return _("held")
        case State.RECEIVING:
            return _("is coming in")


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _local(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
