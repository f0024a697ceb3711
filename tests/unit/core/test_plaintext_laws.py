"""The law of the parsers: what was written in any of a format's forms is found, with its line."""

import random
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesguard.core.plaintext.detect import find_credentials, parser_named
from unit.core.generated import Pair, distinct_pairs

MARK = "\ue000"
"""Stands before a password while the text is put together; its line is the expected one."""

Writer = Callable[[random.Random, list[Pair]], str]


def exim(rand: random.Random, pairs: list[Pair]) -> str:
    """Every form of client_send: lists, separators, quotes, escapes, continued lines, macros."""
    blocks = ["begin authenticators", "# client_send = : nobody : nothing"]
    for number, pair in enumerate(pairs):
        value = _exim_value(rand, pair.username, MARK + pair.password)
        if rand.random() < 0.3:
            blocks.append(f"  AUTH_{number} ={value}")
            value = f" AUTH_{number}"
        hide = rand.choice(["", "hide ", "hide \t"])
        indent = rand.choice(["", "  ", "\t"])
        blocks.append(f"ses{number}:\n{indent}driver = plaintext")
        blocks.append(f"{indent}{hide}client_send{rand.choice(['', ' '])}={value}")
    return "\n".join(blocks) + rand.choice(["", "\n"])


def _exim_value(rand: random.Random, username: str, password: str) -> str:
    head, tail = password[:2], password[2:]  # the mark stays with the first character
    separator = rand.choice([":", ";", ",", "/", "+", "|"])
    quoted = rand.random() < 0.5
    units: list[str] = []
    if rand.random() < 0.4:
        fields = ["^", username, "^", head, *tail]
        separator = ":"
    else:
        doubled = [separator * 2 if c == separator else c for c in tail]
        fields = [separator, " ", *username, " ", separator, rand.choice(["", " "]), head, *doubled]
        if separator != ":" or rand.random() < 0.2:
            fields = ["<" + separator, " ", *fields]
    for field in fields:
        units.append(_exim_escaped(rand, field) if quoted else field)
        if rand.random() < 0.05:
            comment = rand.choice(["", "  # between\n", "#\n"])
            units.append("\\" + rand.choice(["", " "]) + "\n" + comment + rand.choice(["", "   "]))
    text = "".join(units)
    return f' "{text}"' if quoted else f" {text}"


def _exim_escaped(rand: random.Random, text: str) -> str:
    if len(text) != 1 or rand.random() < 0.7:
        return text
    forms = [f"\\x{ord(text):02x}", f"\\{ord(text):03o}"]
    return rand.choice([*forms, "\\" + text] if not text.isalnum() else forms)


def exim_passwd_client(rand: random.Random, pairs: list[Pair]) -> str:
    """HOST:USER:PASSWORD with patterns, quotes, comments and continued lines."""
    lines = ["# HOST:USER:PASSWORD", ""]
    for pair in pairs:
        key = rand.choice(["*.amazonaws.com", "^email-smtp\\\\.", '"a b"', "email-smtp.example"])
        glue = rand.choice([":", ": ", " : ", ":\n  ", ":\n# c\n\n\t"])
        lines.append(f"{key}{glue}{pair.username}:{MARK}{pair.password}")
    return "\n".join(lines)


def postfix(rand: random.Random, pairs: list[Pair]) -> str:
    """Map entries, static and inline maps."""
    lines = ["# key user:password"]
    for pair in pairs:
        both = f"{pair.username}:{MARK}{pair.password}"
        entry = rand.choice(["[mail.example]:587 ", "mail.example\t", "mail.example\n # c\n\n  "])
        lines.append(
            rand.choice(
                [
                    entry + both + rand.choice(["", " ", "\t"]),
                    f"smtp_sasl_password_maps = static:{both}",
                    f"smtp_sasl_password_maps = static:{{ {both} }}",
                    f"smtp_sasl_password_maps =\n  inline:{{ {{ a.example = {both} }} }}",
                    f"maps = inline:{{a.example={both}, [b.example]:25=x:y}}",
                ]
            )
        )
    return "\n".join(lines)


def dotenv(rand: random.Random, pairs: list[Pair]) -> str:
    """Assignments with and without export, quotes, escapes, comments, blanks; DSNs."""
    lines = ["APP_NAME=test"]
    for number, pair in enumerate(pairs):
        scope = rand.choice(["MAIL", "SMTP", "AWS_SES", "mailer"]) + f"_{number}"
        user, password = rand.choice(
            [("USERNAME", "PASSWORD"), ("USER", "PASS"), ("LOGIN", "PWD"), ("KEY_ID", "SECRET")]
        )
        settings = [
            f"{scope}_{user}={_env_value(rand, pair.username)}",
            f"{scope}_{password}={_env_value(rand, MARK + pair.password)}",
        ]
        rand.shuffle(settings)
        start = rand.choice(["", "export ", "  "])
        lines.extend(start + text + rand.choice(["", " # note", "\n#x=y"]) for text in settings)
    return "\n".join(lines)


def _env_value(rand: random.Random, value: str) -> str:
    escaped = "".join("\\" + c if c in "+/" and rand.random() < 0.5 else c for c in value)
    return rand.choice([value, f"'{value}'", f'"{escaped}"', escaped])


def dsn(rand: random.Random, pairs: list[Pair]) -> str:
    """URLs, percent-encoded wholly, partly or not at all."""
    lines = []
    for pair in pairs:
        scheme = rand.choice(["smtp", "smtps", "ses+smtp", "ses+smtps"])
        password = "".join(quote(c, safe=rand.choice(["", "/+"])) for c in pair.password)
        end = rand.choice(["default?region=eu-west-1", "mail.example:587", "mail.example"])
        quotes = rand.choice(["", '"', "'"])
        lines.append(f"X={quotes}{scheme}://{pair.username}:{MARK}{password}@{end}{quotes}")
    return "\n".join(lines)


def msmtp(rand: random.Random, pairs: list[Pair]) -> str:
    """An account for each pair."""
    lines = ["defaults", "auth on"]
    for number, pair in enumerate(pairs):
        quotes = rand.choice(["", '"'])
        settings = [
            f"user {quotes}{pair.username}{quotes}",
            f"\tpassword\t{quotes}{MARK}{pair.password}{quotes} ",
            "host smtp.example",
        ]
        rand.shuffle(settings)
        lines += ["", f"account a{number}", *settings, "# password none"]
    return "\n".join(lines)


def ssmtp(rand: random.Random, pairs: list[Pair]) -> str:
    """One file has one pair; several are files one after the other."""
    lines = []
    for pair in pairs:
        equals = rand.choice(["=", " = ", " "])
        lines += [
            "root=postmaster",
            f"{rand.choice(['AuthUser', 'authuser'])}{equals}{pair.username}",
        ]
        lines += [f"AUTHPASS{equals}{MARK}{pair.password}", "UseTLS=YES"]
    return "\n".join(lines)


def php(rand: random.Random, pairs: list[Pair]) -> str:
    """One of the PHP forms for all pairs."""
    form = rand.choice(
        [
            ("define('S{n}_USER', {u});", 'define( "S{n}_PASS" , {p} );'),
            ("const S{n}_USER = {u};", "const S{n}_PASSWORD={p};"),
            ("$mail{n}->Username={u};", "$mail{n} -> Password   =  {p} ;"),
            ("$this->m{n}->Username = {u};", "$this->m{n}->Password = {p};"),
            ("$config['smtp_user'] = {u};", '$config["smtp_pass"] = {p};'),
            ("'username' => {u},", "'password' => {p},"),
            ("$usernameSmtp{n} = {u};", "$passwordSmtp{n} = {p};"),
        ]
    )
    lines = ["<?php"]
    for number, pair in enumerate(pairs):
        values: dict[str, object] = {
            "n": number,
            "u": _php_literal(rand, pair.username),
            "p": _php_literal(rand, MARK + pair.password + rand.choice(["", " "])),
        }
        lines += [text.format(**values) for text in form] + ["// $x->Password = 'none';"]
    return rand.choice(["\n", "\n\n"]).join(lines)


def _php_literal(rand: random.Random, value: str) -> str:
    if rand.random() < 0.5:
        return f"'{value}'"
    return '"' + "".join(c if c == MARK else _php_escaped(rand, c) for c in value) + '"'


def _php_escaped(rand: random.Random, character: str) -> str:
    code = ord(character)
    return rand.choice([character, character, f"\\x{code:x}", f"\\{code:03o}"])


def plain(rand: random.Random, pairs: list[Pair]) -> str:
    """A user and, behind it, the password."""
    glue = rand.choice([":", " ", "\n", ",", " - and then: ", "\nsmtp password:\n\n  "])
    return "\n".join(
        f"{number} {p.username}{glue}{MARK}{p.password}" for number, p in enumerate(pairs)
    )


WRITERS: dict[str, Writer] = {
    writer.__name__: writer
    for writer in (exim, exim_passwd_client, postfix, dotenv, dsn, msmtp, ssmtp, php, plain)
}

seeds = st.builds(random.Random, st.integers(0, 2**32))
Found = list[tuple[str, str, int]]


def written(writer: Writer, rand: random.Random, pairs: list[Pair]) -> tuple[str, Found]:
    """A text, and what is to be found in it."""
    marked = writer(rand, pairs)
    places = [index for index, character in enumerate(marked) if character == MARK]
    lines = [marked.count("\n", 0, place) + 1 for place in places]
    found = [(p.username, p.password, line) for p, line in zip(pairs, lines, strict=True)]
    return marked.replace(MARK, ""), found


@pytest.mark.parametrize("name", WRITERS)
@given(rand=seeds, pairs=distinct_pairs)
def test_a_parser_finds_exactly_what_was_written(
    name: str, rand: random.Random, pairs: list[Pair]
) -> None:
    """Same users, passwords and lines, in order, whichever forms of the format were used."""
    text, expected = written(WRITERS[name], rand, pairs)
    found = parser_named(name).find(text)
    assert expected == [(item.username, item.password.reveal(), item.line) for item in found]


@pytest.mark.parametrize("name", WRITERS)
@given(rand=seeds, pairs=distinct_pairs)
def test_detection_finds_exactly_what_was_written(
    name: str, rand: random.Random, pairs: list[Pair]
) -> None:
    """All parsers together find no more and no less, without knowing the file's name."""
    text, expected = written(WRITERS[name], rand, pairs)
    found = find_credentials(text)
    assert sorted(expected, key=lambda item: (item[2], item[1])) == sorted(
        ((item.username, item.password.reveal(), item.line) for item in found),
        key=lambda item: (item[2], item[1]),
    )
