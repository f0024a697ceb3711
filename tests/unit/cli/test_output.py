"""The one place that writes to the terminal."""

import io
import json
import sys

import pytest

from sesguard.cli.output import Output, visible
from sesguard.errors import UsageError


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> Output:
    """Output of a run whose standard input is no terminal."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("typed\nmore\n"))
    return Output()


def test_data_and_messages_are_apart(output: Output, capfd: pytest.CaptureFixture[str]) -> None:
    """Data goes to standard output, every message to standard error."""
    output.data("data")
    output.step("step")
    output.ok("ok")
    output.note("note")
    output.warn("warn")
    output.error("error", "hint")

    captured = capfd.readouterr()
    assert captured.out == "data\n"
    assert captured.err.splitlines() == [
        "→ step",
        "✓ ok",
        "note",
        "sesguard: warning: warn",
        "sesguard: error",
        "hint: hint",
    ]


def test_marks_without_unicode(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that lacks the marks gets words."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace")
    monkeypatch.setattr(sys, "stderr", stream)
    output = Output()
    output.step("step")
    output.ok("ok")
    stream.flush()

    assert stream.buffer.getvalue() == b"-> step\nok: ok\n"


def test_long_lines_and_cells_are_whole(output: Output, capfd: pytest.CaptureFixture[str]) -> None:
    """In a pipe nothing is wrapped or cut."""
    output.error("x " * 200)
    output.table(["A", "B"], [["y" * 300, "z"]])

    captured = capfd.readouterr()
    assert captured.err.count("\n") == 1
    assert "y" * 300 in captured.out


def test_markup_is_text(output: Output, capfd: pytest.CaptureFixture[str]) -> None:
    """What looks like Rich markup or an emoji is shown as it is."""
    output.data("[red]a[/red] :smile: 1.5")
    output.note("[bold]b[/bold]")
    output.table(["[c]"], [["[d]"]])

    captured = capfd.readouterr()
    assert captured.out.splitlines()[0] == "[red]a[/red] :smile: 1.5"
    assert "[d]" in captured.out
    assert captured.err == "[bold]b[/bold]\n"


def test_visible_keeps_lines_and_letters() -> None:
    """Only control characters are escaped: tabs, line ends and letters stay."""
    assert "a\tb\nç→" == visible("a\tb\nç→")
    assert "\\x1b[2J\\x9b\\x00\\x0d" == visible("\x1b[2J\x9b\x00\r")


def test_json_is_one_document(output: Output, capfd: pytest.CaptureFixture[str]) -> None:
    """JSON keeps letters as they are and is complete."""
    output.print_json({"version": 1, "text": "não [x]"})

    text = capfd.readouterr().out
    assert {"version": 1, "text": "não [x]"} == json.loads(text)
    assert "não" in text


def test_confirm_without_a_terminal(output: Output) -> None:
    """A question is not answered by a pipe."""
    with pytest.raises(UsageError, match="not a terminal") as caught:
        output.confirm("Sure?", assume_yes=False)
    output.confirm("Sure?", assume_yes=True)

    assert caught.value.hint == "add --yes if that is what you want"


def test_secret_from_a_pipe(output: Output) -> None:
    """Without a terminal a secret is one line of standard input, without its end."""
    assert "typed" == output.ask_secret("Password").reveal()
    assert "more" == output.ask_secret("Password").reveal()


def test_answer_from_a_pipe(output: Output) -> None:
    """A question takes a line."""
    assert "typed" == output.ask("Name", default="x")


def test_json_in_ascii_where_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the encoding lacks a letter the document is still JSON."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace")
    monkeypatch.setattr(sys, "stdout", stream)
    Output().print_json({"text": "não"})
    stream.flush()

    assert {"text": "não"} == json.loads(stream.buffer.getvalue())


def test_story_goes_to_standard_output(output: Output, capfd: pytest.CaptureFixture[str]) -> None:
    """A story is what its command is for, so it is data."""
    output.heading("Part")
    output.story("$ command")

    assert "\nPart\n   $ command\n" == capfd.readouterr().out
