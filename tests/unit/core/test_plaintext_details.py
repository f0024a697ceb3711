"""What the vector files do not say: host and port, scopes, positions, the table of parsers."""

import pytest

from sesguard.core.plaintext.detect import PARSERS, PLAIN, find_credentials, parser_named
from sesguard.core.plaintext.endpoint import endpoint_in, port_number, sole_endpoint
from sesguard.core.plaintext.interface import OLD_SIGNATURE, RAW_KEY, FoundCredential, Parser, judge
from sesguard.core.plaintext.pairing import Role, Setting, pair, setting
from sesguard.core.plaintext.position import REACH, LineCounter, Traced, logical_prefix
from sesguard.core.secret import Secret
from sesguard.errors import UsageError
from unit.core.generated import HOST, OLD_PASSWORD, PASSWORD, USER
from unit.core.generated import RAW_KEY as RAW

OTHER = "AKIAI44QH8DHBEXAMPLE"
EU = "email-smtp.eu-west-1.amazonaws.com"


def test_a_finding_never_shows_its_password() -> None:
    """Neither in its repr nor as text."""
    item = judge(USER, PASSWORD, line=1, kind="test")
    assert item == FoundCredential(USER, Secret(PASSWORD), None, None, 1, "test", None)
    assert PASSWORD not in f"{item!r} {item}"


@pytest.mark.parametrize(
    ("password", "problem"), [(PASSWORD, None), (OLD_PASSWORD, OLD_SIGNATURE), (RAW, RAW_KEY)]
)
def test_a_password_that_cannot_work_is_reported_with_the_reason(
    password: str, problem: str | None
) -> None:
    """A raw secret key and a version 2 password are findings with a problem."""
    item = judge(USER, password, line=1, kind="test")
    assert item is not None
    assert problem == item.problem


@pytest.mark.parametrize(
    ("username", "password"),
    [
        ("ASIAIOSFODNN7EXAMPLE", PASSWORD),
        ("someone", PASSWORD),
        (USER, PASSWORD + "="),
        (USER, PASSWORD[:-1]),
        (USER, "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
        (USER, ""),
    ],
)
def test_anything_else_is_no_finding(username: str, password: str) -> None:
    """Session keys, other users, other lengths, hashes."""
    assert judge(username, password, line=1, kind="test") is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (HOST, (HOST, None)),
        (HOST.upper(), (HOST, None)),
        (f"[{HOST}]:587", (HOST, 587)),
        (f"tls://{HOST}:465", (HOST, 465)),
        (f"* {HOST}::2587 byname", (HOST, 2587)),
        (f"{HOST}:123456", (HOST, None)),
        (f"{HOST}:0", (HOST, None)),
        (
            "vpce-0a-1b.email-smtp.us-east-1.vpce.amazonaws.com",
            ("vpce-0a-1b.email-smtp.us-east-1.vpce.amazonaws.com", None),
        ),
        (f"{HOST}.example.org", (None, None)),
        (f"not{HOST}", (None, None)),
        ("smtp.example.org:587", (None, None)),
    ],
)
def test_an_endpoint_is_read_from_the_forms_that_configurations_have(
    value: str, expected: tuple[str | None, int | None]
) -> None:
    """Brackets, URLs, Exim's doubled colon; not a host that only contains the name."""
    assert expected == endpoint_in(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"route_list = * {HOST}::587\n# {EU}\n", (HOST, 587)),
        (f"{HOST}:587 {HOST}:465", (HOST, None)),
        (f"{HOST} {EU}", (None, None)),
        ("nothing", (None, None)),
    ],
)
def test_the_only_endpoint_of_a_text_counts_for_all_of_it(
    text: str, expected: tuple[str | None, int | None]
) -> None:
    """Comments do not count; of two hosts or two ports neither is taken."""
    assert expected == sole_endpoint(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1),
        ("65535", 65535),
        ("0", None),
        ("65536", None),
        ("٣", None),
        ("", None),
        (None, None),
    ],
)
def test_a_port_is_a_number_from_1_to_65535(text: str | None, expected: int | None) -> None:
    """In ASCII digits."""
    assert expected == port_number(text)


def _setting(role: Role, value: str, line: int, scope: str = "") -> Setting:
    return Setting(role, scope, value, line, says_user=True)


def test_as_many_users_as_passwords_go_together_in_order() -> None:
    """Whichever of the two comes first in the text."""
    password, old = _setting(Role.PASSWORD, PASSWORD, 1), _setting(Role.PASSWORD, OLD_PASSWORD, 3)
    users = [_setting(Role.USER, USER, 2), _setting(Role.USER, OTHER, 4)]
    found = [(item.username, item.line) for item in pair([password, *users, old], "test")]
    assert [(USER, 1), (OTHER, 3)] == found


def test_otherwise_a_password_takes_the_nearest_user() -> None:
    """Of its scope, or of the text when its scope has none."""
    settings = [
        _setting(Role.USER, OTHER, 1),
        _setting(Role.USER, USER, 10),
        _setting(Role.USER, OTHER, 30),
        _setting(Role.PASSWORD, PASSWORD, 12, "elsewhere"),
        _setting(Role.PASSWORD, OLD_PASSWORD, 40),
    ]
    found = [(item.username, item.line) for item in pair(settings, "test")]
    assert [(USER, 12), (OTHER, 40)] == found


def test_no_user_is_no_credential() -> None:
    """A password alone cannot log in."""
    assert [] == list(pair([_setting(Role.PASSWORD, PASSWORD, 1)], "test"))


@pytest.mark.parametrize(
    "user",
    [
        Setting(Role.USER, "", USER, 90, says_user=True),
        Setting(Role.USER, "", USER, 2, says_user=False),
        Setting(Role.USER, "S3", USER, 2, says_user=True),
    ],
)
def test_a_raw_key_needs_a_user_beside_it(user: Setting) -> None:
    """A far one, one that is only an access key, or one of another scope, will not do."""
    assert [] == list(pair([user, _setting(Role.PASSWORD, RAW, 1)], "test"))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("MAIL_USERNAME", USER, (Role.USER, "MAIL")),
        ("EMAIL_HOST_PASSWORD", PASSWORD, (Role.PASSWORD, "EMAIL")),
        ("passwordSmtp", PASSWORD, (Role.PASSWORD, "SMTP")),
        ("SMTPPass", RAW, (Role.PASSWORD, "SMTP")),
        ("AWS_SECRET_ACCESS_KEY", RAW, None),
        ("smtp.host", HOST, (Role.HOST, "SMTP")),
        ("mailhub", f"{HOST}:587", (Role.HOST, "")),
        ("MAIL_PORT", "587", (Role.PORT, "MAIL")),
        ("MAIL_PORT", "none", None),
        ("MAIL_TIMEOUT", "587", None),
    ],
)
def test_the_value_decides_what_a_setting_is_and_the_name_its_scope(
    name: str, value: str, expected: tuple[Role, str] | None
) -> None:
    """Words that name a role are no part of the scope."""
    item = setting(name, value, 1)
    assert expected == (None if item is None else (item.role, item.scope.strip()))


def test_a_setting_does_not_show_its_value() -> None:
    """It may be a password."""
    assert PASSWORD not in repr(setting("PASS", PASSWORD, 1))


def test_line_numbers_are_right_in_any_order() -> None:
    """Also when the counter has to go back."""
    counter = LineCounter("a\nb\nc\n")
    assert [1, 3, 2, 1, 4] == [counter.line_at(offset) for offset in (0, 4, 2, 1, 6)]


def test_text_put_together_knows_where_each_character_came_from() -> None:
    """Empty pieces and the end of the text included."""
    traced = Traced([("ab", 5), ("", 6), ("c", 9)])
    assert ("abc", [5, 5, 9, 9]) == (traced.text, [traced.line_at(n) for n in range(4)])


def test_looking_back_stops_after_a_while() -> None:
    """A line without end costs no more than another."""
    assert REACH == len(logical_prefix("x" * 10 * REACH, 10 * REACH))


def test_a_continued_line_without_a_beginning_has_only_its_own_prefix() -> None:
    """At the start of a file there is nothing to go on with."""
    assert "  " == logical_prefix("# c\n\n  x", 7)


@pytest.mark.parametrize("name", [parser.name for parser, _names in PARSERS] + [PLAIN.name])
def test_every_parser_can_be_had_by_its_name(name: str) -> None:
    """The names are the contract of ``credential import --format``."""
    parser: Parser = parser_named(name)
    assert name == parser.name


def test_an_unknown_format_is_a_usage_error_that_lists_the_known_ones() -> None:
    """The hint has every name."""
    with pytest.raises(UsageError, match="there is no plaintext format sendmail") as caught:
        parser_named("sendmail")
    assert "exim, postfix" in (caught.value.hint or "")


def test_the_parser_that_fits_the_file_name_decides_the_kind() -> None:
    """The same line is an lsearch entry in passwd.client and a map entry in sasl_passwd."""
    text = f"mail.example {USER}:{PASSWORD}\n"
    kinds = {
        name: [item.kind for item in find_credentials(text, name)]
        for name in ("/etc/exim4/passwd.client", "/etc/postfix/sasl_passwd.2024")
    }
    assert [["passwd.client"], ["postfix sasl_passwd"]] == list(kinds.values())


def test_a_comment_counts_only_where_nothing_is_in_use() -> None:
    """A pair that is mentioned is found when it is the only one."""
    mention = f"# was {USER} {OLD_PASSWORD}\n"
    used = f"MAIL_USER={USER}\nMAIL_PASS={PASSWORD}\n"
    found = [[i.kind for i in find_credentials(text, ".env")] for text in (mention, mention + used)]
    assert [["plain pair"], ["dotenv"]] == found


@pytest.mark.parametrize(
    "text",
    [
        f'client_send = "${{if def:h_x:{{^{USER}^{PASSWORD}}}}}"',
        f"client_send = ^{USER}^$value",
        f"client_send = {'x' * 5000}^{USER}^{PASSWORD}",
        f"client_send = : {USER} :",
        f"client_send = ^{PASSWORD}^{USER}",
        f"# client_send = ^{USER}^{PASSWORD}",
        f"LONG = {'x ' * 300}^{USER}^{PASSWORD}\nclient_send = LONG",
    ],
)
def test_a_client_send_that_is_made_at_delivery_time_holds_nothing(text: str) -> None:
    """Nor one beyond the limits, without both parts, the wrong way round, or in a comment."""
    assert [] == list(parser_named("exim").find(text))


def test_a_macro_that_is_redefined_gives_both_values() -> None:
    """Which of them counts depends on .ifdef; both lie in the file."""
    text = f"P = {PASSWORD}\nP == {OLD_PASSWORD}\nclient_send = ^{USER}^P\n"
    found = {(item.line, item.password.reveal()) for item in parser_named("exim").find(text)}
    assert {(1, PASSWORD), (2, OLD_PASSWORD)} == found


@pytest.mark.parametrize("escape", ["\\n", "\\t"])
def test_an_escaped_control_character_ends_a_value_as_white_space(escape: str) -> None:
    """Exim trims items of a list."""
    text = f'client_send = ": {USER}{escape} : {PASSWORD}{escape}"'
    assert [1] == [item.line for item in parser_named("exim").find(text)]


def test_a_quoted_value_ends_at_its_quote() -> None:
    """What follows is an error in Exim and does not count."""
    text = f'client_send = ": {USER} : \\x{ord(PASSWORD[0]):x}{PASSWORD[1:]}" : more'
    assert [PASSWORD] == [item.password.reveal() for item in parser_named("exim").find(text)]


@pytest.mark.parametrize(
    ("parser", "text"),
    [
        ("exim_passwd_client", "host:{u}:{h}\n"),
        ("postfix", "host {u}:{h}\n"),
        ("dsn", "smtp://{u}:{h}@host"),
        ("plain", "{u}:{h}"),
        ("dotenv", "MAIL_USER={u}\nMAIL_PASS={h}\n# smtp://{u}:{p}@host"),
        ("dsn", "# smtp://{u}:{p}@host\n// smtp://{u}:{p}@host"),
        ("postfix", "# host {u}:{p}\nnot a map {u}:{p}\nkey = {u}:{p}"),
        ("exim_passwd_client", "client_send=:{u}:{p}\n# host:{u}:{p}\n"),
    ],
)
def test_what_only_looks_like_a_pair_is_none(parser: str, text: str) -> None:
    """A hexadecimal hash as the password, a comment, an entry of another format."""
    text = text.format(u=USER, p=PASSWORD, h="da39a3ee5e6b4b0d3255bfef95601890afd80709")
    assert [] == list(parser_named(parser).find(text))


def test_a_macro_with_two_definitions_in_use_gives_no_finding_twice() -> None:
    """The first and the last value may be the same."""
    text = f"P = {PASSWORD}\n.ifdef X\nQ = 1\n.else\nQ = 2\n.endif\nclient_send = ^{USER}^P\n"
    assert [1] == [item.line for item in parser_named("exim").find(text)]
