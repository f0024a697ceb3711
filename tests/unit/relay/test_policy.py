"""What an app may send."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesguard.relay.model import App, Reason, Refusal
from sesguard.relay.policy import (
    judge_authors,
    judge_recipient,
    judge_sender,
    judge_size,
    policy_of,
)

KELVIN = "\N{KELVIN SIGN}"
SHOP = App("shop", senders=("News@Example.com", "*@shop.example.org"))


def reason_of(refusal: Refusal | None) -> Reason | None:
    """Why, or None."""
    return refusal.reason if refusal else None


@pytest.mark.parametrize(
    "address",
    [
        "news@example.com",
        "NEWS@EXAMPLE.COM",
        "news@example.com.",
        '"news"@example.com',
        r'"n\ews"@example.com',
        "anybody@shop.example.org",
        '"any body"@Shop.Example.Org',
        "jörg@shop.example.org",
    ],
)
def test_sender_that_is_allowed(address: str) -> None:
    """An address of the list, whatever its case and quoting, and every one of a listed domain."""
    assert judge_sender(SHOP, address) is None
    assert judge_authors(SHOP, [address]) is None


@pytest.mark.parametrize(
    "address",
    [
        "news@example.org",
        "newsx@example.com",
        "news+tag@example.com",
        "news@sub.example.com",
        "x@sub.shop.example.org",
        "x@xshop.example.org",
        "x@shop.example.org.evil.example",
        "x@shop.example.org@evil.example",
        "x@shop.example.org..",
        "x@ shop.example.org",
        f"x@s{KELVIN}op.example.org",
        "*@shop.example.com",
        "shop.example.org",
        "@",
        "news",
        "x@",
        "x@shop.example.org\0",
        "x@shop。example。org",
    ],
)
def test_sender_that_is_not(address: str) -> None:
    """Everything else, near as it may look."""
    assert Reason.SENDER is reason_of(judge_sender(SHOP, address))
    assert Reason.AUTHOR is reason_of(judge_authors(SHOP, [address]))


def test_kelvin_sign_is_no_k() -> None:
    """Letters that are not ASCII are never folded into ASCII, on either side."""
    bank = App("bank", senders=("*@bank.example", f"*@lin{KELVIN}.example"))

    assert judge_sender(bank, f"x@ban{KELVIN}.example") is not None
    assert judge_sender(bank, f"{KELVIN}@bank.example") is None
    assert judge_sender(bank, "x@link.example") is not None
    assert judge_sender(bank, f"x@LIN{KELVIN}.EXAMPLE") is None


def test_refused_sender_is_named() -> None:
    """The reply names the address and the app, in printable ASCII and of bounded length."""
    refusal = judge_sender(SHOP, "é\r\n250 ok\N{ZERO WIDTH SPACE}@evil.example" + "x" * 900)

    assert refusal is not None
    line = refusal.line()
    assert line.startswith(b"553 5.7.1 app shop may not send as <\\xe9\\r\\n250 ok\\u200b@evil.")
    assert line.removesuffix(b"\r\n").isascii()
    assert line.removesuffix(b"\r\n").decode().isprintable()
    assert 512 > len(line)


def test_bounce() -> None:
    """The empty sender is allowed to whom may send at all; its From is judged all the same."""
    assert judge_sender(SHOP, "") is None
    assert Reason.SENDER is reason_of(judge_sender(App("mute"), ""))
    assert Reason.AUTHOR is reason_of(judge_authors(SHOP, ["x@evil.example"]))


def test_app_without_senders() -> None:
    """No senders: it may not send as anybody."""
    assert Reason.SENDER is reason_of(judge_sender(App("mute"), "x@example.com"))


def test_app_with_every_sender() -> None:
    """A lone star allows every address, as an MTA needs it."""
    mta = App("mta", senders=("*",))

    assert judge_sender(mta, "x@example.com") is None
    assert judge_sender(mta, "") is None


def test_every_author_counts() -> None:
    """One author of several that is not allowed is enough, and so is none at all."""
    assert judge_authors(SHOP, ["news@example.com", "x@shop.example.org"]) is None
    refusal = judge_authors(SHOP, ["news@example.com", "x@evil.example"])
    nobody = judge_authors(SHOP, [])

    assert refusal is not None
    assert nobody is not None
    assert (550, "5.7.1") == (refusal.code, refusal.status)
    assert "x@evil.example" in refusal.text
    assert Reason.AUTHOR is nobody.reason


def test_recipients_without_rules() -> None:
    """Without lists everybody may be written to."""
    assert judge_recipient(SHOP, "x@anywhere.example", 50) is None


def test_too_many_recipients() -> None:
    """One more than the limit is refused for now, so that the client sends the rest later."""
    few = App("few", max_recipients=2)

    assert judge_recipient(few, "x@example.com", 2) is None
    refusal = judge_recipient(few, "x@example.com", 3)
    assert refusal is not None
    assert (Reason.RECIPIENTS, 452, "4.5.3") == (refusal.reason, refusal.code, refusal.status)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("x@example.com", None),
        ("boss@example.com", Reason.RECIPIENT),
        ("BOSS@example.com", Reason.RECIPIENT),
        ('"boss"@example.com', Reason.RECIPIENT),
        (r'"b\oss"@example.com.', Reason.RECIPIENT),
        ("x@example.net", Reason.RECIPIENT),
        ("x@sub.example.com", Reason.RECIPIENT),
        ("postmaster", Reason.RECIPIENT),
        ("example.com", Reason.RECIPIENT),
    ],
)
def test_allowed_and_denied(address: str, expected: Reason | None) -> None:
    """A recipient must be allowed, where that list is given, and not denied."""
    app = App("a", allowed_recipients=("*@example.com",), denied_recipients=("boss@example.com",))

    assert expected is reason_of(judge_recipient(app, address, 1))


@pytest.mark.parametrize("pattern", ["*@bücher.example", "*@xn--bcher-kva.example"])
@pytest.mark.parametrize(
    "address",
    [
        "x@bücher.example",
        "x@BÜCHER.example",
        "x@bu\N{COMBINING DIAERESIS}cher.example",
        "x@xn--bcher-kva.example",
        "x@XN--BCHER-KVA.EXAMPLE.",
        "x@bücher。example",
    ],
)
def test_denied_domain_by_its_other_spelling(pattern: str, address: str) -> None:
    """A denied domain is denied in every form that the DNS would find it by."""
    app = App("a", denied_recipients=(pattern,))

    assert Reason.RECIPIENT is reason_of(judge_recipient(app, address, 1))


@given(st.text(max_size=300))
def test_no_address_breaks_it(address: str) -> None:
    """Any text is judged, and the reply about it is one line of ASCII."""
    app = App("a", ("a@example.com",), ("*@example.com",), ("*@bücher.example", "b@example.com"))
    refusals = [
        judge_sender(app, address or "x"),
        judge_authors(app, [address]),
        judge_recipient(app, address, 1),
    ]

    for refusal in refusals:
        assert refusal is not None
        assert refusal.line().endswith(b"\r\n")
        assert refusal.line()[:-2].decode("ascii").isprintable()


def test_size() -> None:
    """A message may be as large as the limit and no larger."""
    small = App("small", max_message_bytes=1000)

    assert judge_size(small, 1000) is None
    refusal = judge_size(small, 1001)
    assert refusal is not None
    assert (Reason.SIZE, 552, "5.3.4") == (refusal.reason, refusal.code, refusal.status)


def test_changed_rules_of_one_name() -> None:
    """An app of the same name with other rules is judged by those."""
    assert judge_sender(App("a", senders=("x@example.com",)), "x@example.com") is None
    assert judge_sender(App("a", senders=("y@example.com",)), "x@example.com") is not None


def test_rules_are_made_once() -> None:
    """An app that is equal to the last one of its name keeps what was made for that."""
    first = policy_of(App("once", senders=("x@example.com",)))

    assert first is policy_of(App("once", senders=("x@example.com",)))


def test_rules_of_many_apps() -> None:
    """What is kept is bounded, and right for each of many apps."""
    for index in range(5000):
        app = App(f"cpanel:u{index}", senders=(f"u{index}@example.com",))
        assert judge_sender(app, f"u{index}@example.com") is None
        assert judge_sender(app, f"u{index + 1}@example.com") is not None
