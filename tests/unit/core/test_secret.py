"""Every way of letting a secret slip: tests of `sesguard.core.secret`."""

import copy
import dataclasses
import hmac
import io
import json
import logging
import pickle
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

import msgspec
import pytest
from rich.console import Console
from rich.traceback import Traceback

from sesguard.core.secret import REDACTED, Secret
from unit.core.generated import PASSWORD

SECRET = Secret(PASSWORD)


@dataclass(frozen=True, slots=True)
class Holder:
    """Something that holds a secret."""

    name: str
    password: Secret


HOLDER = Holder("main", SECRET)


def _printed(secret: Secret) -> str:
    stream = io.StringIO()
    print(secret, file=stream)
    return stream.getvalue()


def _logged(secret: Secret) -> str:
    stream = io.StringIO()
    logger = logging.getLogger("sesguard.test.secret")
    logger.handlers = [logging.StreamHandler(stream)]
    logger.warning("password %s %r %s", secret, [secret], {"password": secret})
    return stream.getvalue()


def _raised(secret: Secret) -> BaseException:
    try:
        raise ValueError(secret)
    except ValueError as error:
        return error


def _rich_traceback(secret: Secret) -> str:
    console = Console(file=io.StringIO(), width=200, record=True)
    try:
        held = {"password": secret, "holder": Holder("x", secret)}
        raise ValueError(held["password"])
    except ValueError:
        console.print(Traceback(show_locals=True))
    return console.export_text()


def _rich_pretty(secret: Secret) -> str:
    console = Console(file=io.StringIO(), width=200, record=True)
    console.print([secret], Holder("x", secret), secret)
    return console.export_text()


SHOWN: dict[str, Callable[[Secret], str]] = {
    "repr": repr,
    "str": str,
    "format": lambda secret: format(secret, ">60s"),
    "percent": lambda secret: "%s %r" % (secret, secret),  # noqa: UP031
    "f-string": lambda secret: f"{secret} {secret!r} {secret!s} {secret:x}",
    "str.format": "{} {0!r:>20}".replace("{}", "{0}").format,
    "print": _printed,
    "list": lambda secret: repr([secret]),
    "dict": lambda secret: str({"password": secret}),
    "dataclass": lambda secret: repr(Holder("x", secret)),
    "json default=str": lambda secret: json.dumps({"password": secret}, default=str),
    "logging": _logged,
    "exception": lambda secret: f"{_raised(secret)} {_raised(secret)!r}",
    "traceback": lambda secret: "".join(traceback.format_exception(_raised(secret))),
    "traceback with locals": lambda secret: "".join(
        traceback.TracebackException.from_exception(_raised(secret), capture_locals=True).format()
    ),
    "rich traceback with locals": _rich_traceback,
    "rich print": _rich_pretty,
}


@pytest.mark.parametrize("way", SHOWN)
def test_showing_a_secret_shows_the_placeholder(way: str) -> None:
    """Not the value, nor the longer part of it."""
    shown = SHOWN[way](SECRET)
    assert REDACTED in shown
    assert PASSWORD[:12] not in shown
    assert PASSWORD[-12:] not in shown


REFUSED: dict[str, Callable[[], object]] = {
    "pickle": lambda: pickle.dumps(SECRET),
    "pickle of a holder": lambda: pickle.dumps(HOLDER),
    "copy": lambda: copy.copy(SECRET),
    "deepcopy": lambda: copy.deepcopy(HOLDER),
    "asdict": lambda: dataclasses.asdict(HOLDER),
    "astuple": lambda: dataclasses.astuple(HOLDER),
    "vars": lambda: vars(SECRET),
    "json": lambda: json.dumps(SECRET),
    "json default=vars": lambda: json.dumps(SECRET, default=vars),
    "msgspec json": lambda: msgspec.json.encode(HOLDER),
    "msgspec builtins": lambda: msgspec.to_builtins(HOLDER),
    "getstate": SECRET.__getstate__,
    "reduce": SECRET.__reduce__,
    "hash": lambda: hash(SECRET),
    "set": lambda: {SECRET},
    "iteration": lambda: list(SECRET),  # type: ignore[call-overload]
    "length": lambda: len(SECRET),  # type: ignore[arg-type]
    "index": lambda: SECRET[0],  # type: ignore[index]
    "addition": lambda: SECRET + "x",  # type: ignore[operator]
    "join": lambda: ",".join(iter([SECRET])),  # type: ignore[arg-type]
    "bytes": lambda: bytes(SECRET),  # type: ignore[call-overload]
    "ordering": lambda: SECRET < SECRET,  # type: ignore[operator]
}


@pytest.mark.parametrize("way", REFUSED)
def test_taking_a_secret_apart_fails_without_showing_it(way: str) -> None:
    """A TypeError, whose text and context say nothing of the value."""
    with pytest.raises(TypeError) as caught:
        REFUSED[way]()
    assert PASSWORD[:12] not in "".join(traceback.format_exception(caught.value))


def test_reveal_gives_the_value() -> None:
    """And it is the only way."""
    assert PASSWORD == SECRET.reveal()


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        (PASSWORD, PASSWORD, True),
        (PASSWORD, PASSWORD[:-1] + "8", False),
        (PASSWORD, PASSWORD[:-1], False),
        ("", "", True),
        ("é", "é", True),
        ("é", "e", False),
        ("\udcff\ud800", "\udcff\ud800", True),
        ("\udcff", "\ud800", False),
    ],
)
def test_equality_compares_the_values(left: str, right: str, *, equal: bool) -> None:
    """Also text that cannot be encoded."""
    assert equal is (Secret(left) == Secret(right))
    assert equal is not (Secret(left) != Secret(right))


def test_a_secret_is_never_equal_to_its_text() -> None:
    """Comparing with a str by mistake is not a match."""
    assert (Secret("a") == "a") is False


def test_equality_takes_constant_time() -> None:
    """The comparison is the one of hmac, whatever the values are."""
    called: list[object] = []

    def watch(_frame: FrameType, event: str, argument: object) -> None:
        if event == "c_call":
            called.append(argument)

    sys.setprofile(watch)
    try:
        assert Secret("a" * 40) != Secret("b" * 40)
    finally:
        sys.setprofile(None)
    assert hmac.compare_digest in called


@pytest.mark.parametrize(("value", "truth"), [("", False), ("0", True), (" ", True)])
def test_only_an_empty_secret_is_false(value: str, *, truth: bool) -> None:
    """``if secret`` asks whether there is one."""
    assert truth is bool(Secret(value))
