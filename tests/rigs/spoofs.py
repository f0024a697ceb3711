"""
Ways to send as somebody else.

App A may send as ``*@a.example``; each trick tries to make a message of ``victim@b.example`` out of
it. A trick is a name, the envelope sender as it stands in MAIL between the angle brackets, and the
header in wire form (with its empty line) as it goes out after DATA.

`shown_authors` is what the readers of Python's standard library see, which must never be anybody
whom the relay did not see. `HARMLESS` names the tricks that may be delivered, since nobody but A is
the author of what comes of them; every other one must be refused.
"""

import contextlib
import re
from email import message_from_string, policy
from email.message import Message
from email.utils import getaddresses
from typing import Final, NamedTuple

OWN: Final = "shop@a.example"
VICTIM: Final = "victim@b.example"
AUTHOR_FIELDS: Final = ("From", "Sender", "Resent-From", "Resent-Sender")


class Spoof(NamedTuple):
    """One trick."""

    name: str
    envelope_sender: str
    header: bytes


def _header(*lines: str | bytes) -> bytes:
    rest = ("To: customer@example.net", "Subject: hello", "", "")
    return b"\r\n".join(x if isinstance(x, bytes) else x.encode() for x in (*lines, *rest))


def _trick(name: str, *lines: str | bytes) -> Spoof:
    return Spoof(name, OWN, _header(*lines))


def _envelope(name: str, sender: str) -> Spoof:
    return Spoof(name, sender, _header(f"From: <{OWN}>"))


_GOOD = "From: Shop <shop@a.example>"

_PLAIN: Final = (
    _trick("From of the victim", "From: victim@b.example"),
    _trick("From of the victim with a name", "From: Bank <victim@b.example>"),
    _trick("From in capitals", "FROM: victim@b.example"),
    _trick("From in mixed case", "fRoM: victim@b.example"),
    _trick("domain in capitals", "From: victim@B.EXAMPLE"),
    _trick("From without a space after the colon", "From:victim@b.example"),
    _trick("From with a space before the colon", "From : victim@b.example"),
    _trick("From with a tab before the colon", "From\t: victim@b.example"),
    _trick("second From with a space before the colon", _GOOD, "From : victim@b.example"),
    _trick("second From with a tab before the colon", _GOOD, "From\t\t: victim@b.example"),
    _trick("no From at all", "Reply-To: victim@b.example"),
    _trick("no field at all"),
    _trick("empty From", "From:"),
    _trick("From of spaces", "From:    "),
    _trick("From with a name only", "From: victim"),
    _trick("From with an empty address", "From: victim@b.example <>"),
    _trick("null sender and From of the victim", "From: <>", "Sender: victim@b.example"),
    Spoof("envelope sender null, From of the victim", "", _header("From: victim@b.example")),
)

_SEVERAL: Final = (
    _trick("two From, the victim first", "From: victim@b.example", _GOOD),
    _trick("two From, the victim last", _GOOD, "From: victim@b.example"),
    _trick("two From of A", _GOOD, _GOOD),
    _trick("three From", _GOOD, "From: victim@b.example", _GOOD),
    _trick("second From at the end", _GOOD, "X-One: 1", "X-Two: 2", "from: victim@b.example"),
    _trick("two mailboxes, the victim last", "From: shop@a.example, victim@b.example"),
    _trick("two mailboxes, the victim first", "From: victim@b.example, shop@a.example"),
    _trick("two mailboxes with names", "From: A <shop@a.example>, B <victim@b.example>"),
    _trick("second mailbox on a folded line", "From: shop@a.example,", "\tvictim@b.example"),
    _trick("empty list element", "From: ,victim@b.example"),
    _trick("empty element before A", "From: ,shop@a.example"),
    _trick("comma at the end", "From: shop@a.example,"),
    _trick("semicolon for a comma", "From: shop@a.example; victim@b.example"),
    _trick("two addresses without a comma", "From: shop@a.example victim@b.example"),
    _trick("two From, one of them a wrong line", "From victim@b.example", _GOOD),
)

_SENDERS: Final = (
    _trick("Sender of the victim", _GOOD, "Sender: victim@b.example"),
    _trick("Sender before From", "Sender: victim@b.example", _GOOD),
    _trick("two Sender", _GOOD, "Sender: shop@a.example", "Sender: victim@b.example"),
    _trick("two Sender of A", _GOOD, "Sender: shop@a.example", "Sender: shop@a.example"),
    _trick("empty Sender", _GOOD, "Sender: "),
    _trick("Sender that is a group", _GOOD, "Sender: x: victim@b.example;"),
    _trick("Sender with two mailboxes", _GOOD, "Sender: shop@a.example, victim@b.example"),
    _trick("Resent-From of the victim", "Resent-From: victim@b.example", _GOOD),
    _trick("Resent-Sender of the victim", "Resent-Sender: victim@b.example", _GOOD),
    _trick(
        "second Resent-From of the victim",
        "Resent-From: shop@a.example",
        "Resent-From: victim@b.example",
        _GOOD,
    ),
    _trick("Resent-From that is a group", "resent-from: x: victim@b.example;", _GOOD),
    _trick("empty Resent-From", "Resent-From:", _GOOD),
)

_FOLDS: Final = (
    _trick("address on a folded line", "From:", " victim@b.example"),
    _trick("address on a line folded with a tab", "From:", "\tvictim@b.example"),
    _trick("name and address apart", "From: Bank", " <victim@b.example>"),
    _trick("address cut in two by a fold", "From: <victim", " @b.example>"),
    _trick("domain cut in two by a fold", "From: <shop@a.example", " .b.example>"),
    _trick("forty folds", "From:", *[" x"] * 40, " <victim@b.example>"),
    _trick("a fold of 900 spaces", "From: x", " " * 900 + "<victim@b.example>"),
    _trick("a line of 2,000 octets", _GOOD, "X-A: " + "a" * 2000 + "From: victim@b.example"),
    _trick("continuation of white space only", _GOOD, "  ", "From: victim@b.example"),
    _trick("continuation of a tab only", "X-A: 1", "\t", "From: victim@b.example", _GOOD),
    _trick(
        "From ended by a line of white space", "From: shop@a.example,", " ", " victim@b.example"
    ),
    _trick("continuation as the first line", " From: victim@b.example", _GOOD),
    _trick("continuation of A first", " x", "From: victim@b.example"),
    _trick("fold within quotes", 'From: "a', ' b" <victim@b.example>'),
    _trick("fold within a comment", "From: (a", " b) victim@b.example"),
    _trick("backslash before a fold", 'From: "a\\', ' " <victim@b.example>, <shop@a.example>'),
    _trick("continuation after one dot", "From: shop@a.example,", ". victim@b.example"),
    _trick("white space after one dot", _GOOD, ". ", "From: victim@b.example"),
    _trick("From after one dot, which is not part of it", ".From: victim@b.example"),
    _trick("second From after one dot", _GOOD, ".From: victim@b.example"),
    _trick("From after two dots is another field", _GOOD, "..From: victim@b.example"),
)

_COMMENTS: Final = (
    _trick("comment before the address", "From: (shop@a.example) victim@b.example"),
    _trick("comment after the address", "From: victim@b.example (shop@a.example)"),
    _trick("comment with the bracketed address", "From: (<shop@a.example>) <victim@b.example>"),
    _trick("comment within the address", "From: victim(shop@a.example)@b.example"),
    _trick("comment around the @", "From: victim(a)@(b)b.example"),
    _trick("comment within the domain", "From: shop@a.example(.b.example)"),
    _trick("comment before a longer domain", "From: shop@a.example(x).b.example"),
    _trick("nested comment", "From: (a(b)<shop@a.example>) victim@b.example"),
    _trick("nested comment not closed", "From: ((a) shop@a.example, victim@b.example"),
    _trick("comment not closed", "From: shop@a.example (, victim@b.example"),
    _trick("comment closed twice", "From: shop@a.example (a)), victim@b.example"),
    _trick("escaped end of a comment", "From: shop@a.example (\\), victim@b.example"),
    _trick("comment between brackets", "From: <shop@a.example>(x)<victim@b.example>"),
    _trick("bracket within a comment", "From: victim@b.example(<)shop@a.example(>)"),
    _trick("comment that holds the victim", "From: shop@a.example (victim@b.example)"),
    _trick("comment that holds a bracketed victim", "From: (<victim@b.example>) <shop@a.example>"),
)

_QUOTES: Final = (
    _trick("name that looks like the victim", 'From: "victim@b.example" <shop@a.example>'),
    _trick("quoted bracket of the victim", 'From: "<victim@b.example>" <shop@a.example>'),
    _trick("escaped quote in a name", 'From: "x\\" <victim@b.example>" <shop@a.example>'),
    _trick("escaped quote too few", 'From: "x\\\\" <victim@b.example>" <shop@a.example>'),
    _trick("quote not closed", 'From: "Shop <shop@a.example>, victim@b.example'),
    _trick("quote closed by a second From", 'From: "x', _GOOD, 'From: " <victim@b.example>'),
    _trick("quoted local part with an @", 'From: "victim@b.example"@a.example'),
    _trick("quoted local part with brackets", 'From: "<victim@b.example>"@a.example'),
    _trick("quoted local part with a comma", 'From: <"victim@b.example,"@a.example>'),
    _trick("quoted local part of the victim", 'From: "victim"@b.example'),
    _trick("quoted local part with a space", 'From: <"victim@b.example "@a.example>'),
    _trick("half quoted local part", 'From: vic"tim@b.example>"@a.example'),
    _trick("quoted domain", 'From: victim@"b.example"'),
    _trick("quoted word after the domain", 'From: shop@a.example".b.example"'),
    _trick("domain literal", "From: victim@[127.0.0.1]"),
    _trick("domain literal of a name", "From: victim@[b.example]"),
    _trick("domain literal after a domain", "From: shop@a.example[b.example]"),
    _trick("bracket not closed", "From: victim@[b.example"),
    _trick("backslash before the @", "From: victim@b.example\\@a.example"),
)

_BRACKETS: Final = (
    _trick("two bracketed addresses", "From: <shop@a.example> <victim@b.example>"),
    _trick("two bracketed addresses together", "From: <victim@b.example><shop@a.example>"),
    _trick("address in two brackets", "From: <<victim@b.example>>"),
    _trick("brackets within brackets", "From: <shop@a.example <victim@b.example>>"),
    _trick("bracket not closed at the end", "From: Shop <victim@b.example"),
    _trick("bracket not opened", "From: Shop victim@b.example>"),
    _trick("bracket the wrong way", "From: >victim@b.example<"),
    _trick("two addresses in a bracket", "From: <shop@a.example, victim@b.example>"),
    _trick("bare address before a bracketed one", "From: victim@b.example <shop@a.example>"),
    _trick("bare address after a bracketed one", "From: <shop@a.example> victim@b.example"),
    _trick("bare address glued to a bracketed one", "From: victim@b.example<shop@a.example>"),
    _trick("name that begins with a dot", "From: .<shop@a.example>"),
    _trick("name after a bracketed address", "From: <shop@a.example> victim"),
    _trick("route address", "From: <@a.example:victim@b.example>"),
    _trick("route address to A", "From: <@b.example,@a.example:shop@a.example>"),
    _trick("route without brackets", "From: @a.example:victim@b.example"),
    _trick("group", "From: shop@a.example: victim@b.example;"),
    _trick("group of A", "From: A: shop@a.example;"),
    _trick("empty group", "From: victim@b.example:;"),
    _trick("empty group and A", "From: undisclosed:;, shop@a.example"),
    _trick("group without an end", "From: x: victim@b.example, shop@a.example"),
    _trick("group in a second line", "From: shop@a.example,", " x: victim@b.example;"),
)

_SHAPES: Final = (
    _trick("space before the @", "From: victim @b.example"),
    _trick("space after the @", "From: victim@ b.example"),
    _trick("space within the domain", "From: shop@a.example .b.example"),
    _trick("tab around the @", "From: <victim\t@\tb.example>"),
    _trick("two @", "From: victim@b.example@a.example"),
    _trick("@ at the front", "From: @victim@b.example"),
    _trick("@ alone", "From: @"),
    _trick("no domain", "From: victim@"),
    _trick("no local part", "From: @b.example"),
    _trick("percent hack", "From: victim%b.example@a.example"),
    _trick("UUCP path", "From: b.example!victim@a.example"),
    _trick("UUCP path alone", "From: b.example!victim"),
    _trick("domain with a dot at the end", "From: victim@b.example."),
    _trick("domain of A with a dot at the end", "From: victim@a.example."),
    _trick("domain with two dots", "From: victim@a..example"),
    _trick("domain that begins with a dot", "From: victim@.a.example"),
    _trick("local part that ends in a dot", "From: victim.@a.example"),
    _trick("subdomain of A", "From: victim@b.a.example"),
    _trick("domain that ends like A's", "From: victim@evil-a.example"),
    _trick("domain that begins like A's", "From: victim@a.example.b.example"),
    _trick("number sign after the domain", "From: victim@a.example#.b.example"),
    _trick("slash after the domain", "From: victim@b.example/@a.example"),
    _trick("mailto", "From: <mailto:victim@b.example>"),
    _trick("plus address", "From: victim+shop=a.example@b.example"),
    _trick("address of 400 characters", f"From: {'a' * 400}@a.example, victim@b.example"),
    _trick("mbox line", "From victim@b.example Thu Jul 30 12:00:00 2026", _GOOD),
    _trick("quoted mbox line is another field", ">From: victim@b.example", _GOOD),
)

_ENCODED: Final = (
    _trick("encoded address", "From: =?utf-8?Q?victim=40b.example?="),
    _trick("encoded address in brackets", "From: <=?utf-8?Q?victim=40b.example?=>"),
    _trick("encoded local part", "From: =?utf-8?Q?victim?=@b.example"),
    _trick("encoded local part at A", "From: =?utf-8?B?dmljdGltQGIuZXhhbXBsZQA=?=@a.example"),
    _trick("encoded domain", "From: victim@=?utf-8?Q?b.example?="),
    _trick(
        "encoded word glued to an address", "From: =?utf-8?Q?victim=40b.example=00?=shop@a.example"
    ),
    _trick("encoded comma", "From: =?utf-8?Q?victim=40b.example=2C?= <shop@a.example>"),
    _trick("encoded brackets", "From: =?utf-8?Q?=3Cvictim=40b.example=3E?= <shop@a.example>"),
    _trick(
        "encoded line end", "From: =?utf-8?Q?x=0D=0AFrom=3A_victim=40b.example?= <shop@a.example>"
    ),
    _trick("encoded line end in base 64", "From: =?x?b?YQ0KRnJvbTog?= <shop@a.example>"),
    _trick("encoded NUL", "From: =?utf-8?q?victim=40b.example=00?= <shop@a.example>"),
    _trick("encoded bracket, then the victim", "From: =?utf-8?Q?=3C?= victim@b.example"),
    _trick("comma in an encoded word", "From: =?utf-8?Q?a,victim@b.example?= <shop@a.example>"),
    _trick("encoded word in quotes", 'From: "=?utf-8?Q?victim=40b.example?=" <shop@a.example>'),
    _trick("encoded field name", "=?utf-8?Q?From?=: victim@b.example"),
)

_BYTES: Final = (
    _trick("full-width @", "From: victim＠b.example"),
    _trick("full-width @ before A", "From: victim＠b.example@a.example"),
    _trick("small @ before A", "From: <victim﹫b.example@a.example>"),
    _trick("full-width dot", "From: victim@b．example"),
    _trick("full-width letter in A's domain", "From: victim@ａ.example"),
    _trick("Cyrillic letter in A's domain", "From: victim@\u0430.example"),
    _trick("Kelvin sign and other folds", "From: victim@b.ex\u212aample"),
    _trick("zero width space in A's domain", "From: victim@a\u200b.example"),
    _trick("right-to-left override", "From: victim@\u202eelpmaxe.b"),
    _trick("UTF-8 field name", "Ｆrom: victim@b.example", _GOOD),
    _trick("full-width colon", "From： victim@b.example", _GOOD),
    _trick("soft hyphen in the field name", "Fr\u00adom: victim@b.example", _GOOD),
    _trick("next line character", "From: shop@a.example\u0085From: victim@b.example"),
    _trick("line separator", "From: shop@a.example,\u2028victim@b.example"),
    _trick("Latin-1 in the name", b"From: Jo\xe3o <victim@b.example>"),
    _trick("Latin-1 in the name of A", b"From: Jo\xe3o <shop@a.example>"),
    _trick("half a character before a quote", b'From: "x\xe3" <shop@a.example>, "'),
    _trick("overlong slash", b"From: victim@b.example\xc0\xaf <shop@a.example>"),
    _trick("byte order mark before From", "\ufeffFrom: victim@b.example", _GOOD),
    _trick("NUL in the field name", b"Fr\0om: victim@b.example", _GOOD),
    _trick("NUL before the field name", b"\0From: victim@b.example", _GOOD),
    _trick("NUL after A", b"From: shop@a.example\0, victim@b.example"),
    _trick("NUL in the address", b"From: vic\0tim@b.example"),
    _trick("backspaces", b"From: victim@b.example\b\b\b <shop@a.example>"),
    _trick("escape sequence", b"From: \x1b[2Kvictim <shop@a.example>"),
    _trick("vertical tab", b"X-A: 1\vFrom: victim@b.example", _GOOD),
    _trick("form feed", b"X-A: 1\fFrom: victim@b.example", _GOOD),
    _trick("file separator", b"X-A: 1\x1cFrom: victim@b.example", _GOOD),
    _trick("DEL in the field name", b"From\x7f: victim@b.example", _GOOD),
    _trick("bare LF before a From", b"X-A: 1\nFrom: victim@b.example", _GOOD),
    _trick("bare CR before a From", b"X-A: 1\rFrom: victim@b.example", _GOOD),
    _trick("bare LF within From", b"From: shop@a.example\nFrom: victim@b.example"),
    _trick("bare LF and space within From", b"From: shop@a.example,\n victim@b.example"),
    _trick("LF CR", b"X-A: 1\n\rFrom: victim@b.example", _GOOD),
    _trick("CR CR LF", b"X-A: 1\r", "From: victim@b.example"),
    _trick("header ended by a bare LF", b"X-A: 1\n\nFrom: victim@b.example", _GOOD),
)

_LINES: Final = (
    _trick("From after a line that is no field", "hello", "From: victim@b.example"),
    _trick("line that is no field after From", _GOOD, "hello", "From: victim@b.example"),
    _trick("field without a name", ": x", "From: victim@b.example"),
    _trick("field name with a space in it", "X A: 1", "From: victim@b.example"),
    _trick("From with a word before it", "X From: victim@b.example", _GOOD),
    _trick("colon before From", ":From: victim@b.example", _GOOD),
    _trick("SES source identity", _GOOD, "X-SES-SOURCE-ARN: arn:aws:ses:x:1:identity/b.example"),
    _trick("SES from identity", _GOOD, "x-ses-from-arn: arn:aws:ses:x:1:identity/b.example"),
    _trick(
        "SES return path identity, folded",
        _GOOD,
        "X-Ses-Return-Path-Arn:",
        " arn:aws:ses:x:1:identity/b.example",
    ),
    _trick("SES field with a space before the colon", _GOOD, "X-SES-SOURCE-ARN : arn:aws:x"),
    _trick("SES field after one dot", _GOOD, ".X-SES-SOURCE-ARN: arn:aws:x"),
)

_ENVELOPES: Final = (
    _envelope("envelope sender of the victim", VICTIM),
    _envelope("envelope sender in capitals", "VICTIM@B.EXAMPLE"),
    _envelope("envelope sender with a source route", "@a.example:victim@b.example"),
    _envelope("envelope sender with a route over both", "@a.example,@b.example:victim@b.example"),
    _envelope("envelope sender, two @", "shop@a.example@b.example"),
    _envelope("envelope sender, quoted @", '"victim@a.example"@b.example'),
    _envelope("envelope sender, quoted local part", '"victim"@b.example'),
    _envelope("envelope sender with a dot at the end", "victim@b.example."),
    _envelope("envelope sender with an escaped @", "shop\\@a.example@b.example"),
    _envelope("envelope sender at a subdomain", "victim@b.a.example"),
    _envelope("envelope sender, domain like A's", "victim@evil-a.example"),
    _envelope("envelope sender, domain literal", "victim@[127.0.0.1]"),
    _envelope("envelope sender, two brackets", "shop@a.example> <victim@b.example"),
    _envelope("envelope sender, bracket in a quote", '"x> <victim@b.example>"@b.example'),
    _envelope("envelope sender, comment", "victim@b.example(a.example)"),
    _envelope("envelope sender, full-width @", "shop@a.example＠b.example"),
    _envelope("envelope sender, percent hack", "victim%a.example@b.example"),
    _envelope("envelope sender, path", "a.example!victim@b.example"),
)

SPOOFS: Final = [
    *_PLAIN,
    *_SEVERAL,
    *_SENDERS,
    *_FOLDS,
    *_COMMENTS,
    *_QUOTES,
    *_BRACKETS,
    *_SHAPES,
    *_ENCODED,
    *_BYTES,
    *_LINES,
    *_ENVELOPES,
]

HARMLESS: Final = frozenset(
    {
        "From after two dots is another field",
        "comment within the domain",
        "comment that holds the victim",
        "comment that holds a bracketed victim",
        "name that looks like the victim",
        "quoted bracket of the victim",
        "escaped quote in a name",
        "encoded comma",
        "encoded brackets",
        "encoded word in quotes",
        "quoted mbox line is another field",
        "SES source identity",
        "SES from identity",
        "SES return path identity, folded",
        "SES field with a space before the colon",
        "SES field after one dot",
    }
)
"""Delivered, as A and without any X-SES-* field of the client."""


def shown_authors(block: bytes) -> set[str]:
    """The addresses of all author fields that the standard library finds, by either policy."""
    plain = re.sub(rb"(?m)^\.", b"", block).decode(errors="surrogateescape")
    shown: set[str] = set()
    old: Message = message_from_string(plain, policy=policy.compat32)
    new = message_from_string(plain, policy=policy.default)
    for field in AUTHOR_FIELDS:
        values = [str(value) for value in old.get_all(field, [])]
        shown |= {address for _, address in getaddresses(values)}
        # Python's newer reader breaks on a name that ends in a dot, and then shows nobody.
        with contextlib.suppress(AttributeError):
            for value in new.get_all(field, []):
                shown |= {address.addr_spec for address in value.addresses}
    return {same_domain(address) for address in shown if "@" in address}


def same_domain(address: str) -> str:
    """`address` with its domain in lower case and without quotes that say nothing."""
    local, _, domain = address.rpartition("@")
    if re.fullmatch(r'"[\w.+-]*"', local):
        local = local[1:-1]
    return f"{local}@{domain.lower()}"
