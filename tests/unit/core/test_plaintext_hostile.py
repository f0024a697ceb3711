"""Text that was made to break the parsers: they raise nothing and stay quick."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesguard.core.plaintext.detect import PARSERS, PLAIN, find_credentials
from sesguard.core.plaintext.interface import OLD_SIGNATURE, RAW_KEY
from sesguard.core.shapes import is_access_key_id, is_smtp_password, looks_like_secret_key
from unit.core.generated import HOST, OLD_PASSWORD, PASSWORD, USER
from unit.core.generated import RAW_KEY as RAW

ALL_PARSERS = [*(parser for parser, _names in PARSERS), PLAIN]

PIECES = [
    USER,
    PASSWORD,
    OLD_PASSWORD,
    RAW,
    HOST,
    *"\n \t:;^<>=\"'\\/#${}[](),.?&%+-@*|",
    *(
        "\\\n",
        "\r\n",
        "//",
        "/*",
        "=>",
        "->",
        "%2F",
        "%zz",
        "\0",
        "\udcff",
        "\ud800",
        "٣",
        "\u2028",
    ),
    *("client_send", "hide", "A", "A = ", "B == A", ".ifdef", "begin authenticators"),
    *("static:", "inline:{", "account a", "user ", "password ", "port", "587", "99999"),
    *("mailhub=", "AuthUser=", "AuthPass=", "define('A_USER',", "const A_PASS =", "$mail->Port = "),
    *("$m->Username =", "$m->Password =", "'password'", "MAIL_PASSWORD=", "MAIL_PORT=", "export "),
    *(
        "smtp://",
        "ses+smtps://",
        "?region=eu-west-1",
        "?region=EU",
        "\\x4",
        "\\777",
        "\\x",
        "vpce-",
    ),
]

token_soup = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)
any_bytes = st.binary(max_size=200).map(lambda data: data.decode("utf-8", "surrogateescape"))


@given(text=st.one_of(token_soup, any_bytes, st.text(max_size=200)))
def test_any_text_gives_findings_of_the_right_shape_and_no_exception(text: str) -> None:
    """Each finding is a key id with a password, at a line that exists; its problem fits."""
    for parser in ALL_PARSERS:
        for item in parser.find(text):
            password = item.password.reveal()
            assert is_access_key_id(item.username)
            assert is_smtp_password(password) or looks_like_secret_key(password)
            assert 1 <= item.line <= text.count("\n") + 1
            assert item.problem in (None, RAW_KEY, OLD_SIGNATURE)
            assert item.port is None or 1 <= item.port <= 65535
            assert password not in repr(item)


@given(text=token_soup)
def test_detection_reports_no_password_twice_at_one_line(text: str) -> None:
    """However many parsers see it, and in the order of the lines."""
    found = [(item.line, item.password.reveal()) for item in find_credentials(text)]
    assert len(set(found)) == len(found)
    assert [line for line, _password in found] == sorted(line for line, _password in found)


UNITS = [
    *("\n", " ", "a", "A", "\\", "\\ ", '"', "'", "$", "[", "^", "\0", "#", "\n#", "x=", "%41"),
    *("AKIA", "BA/+", f"{USER} ", f"{PASSWORD} ", f"{USER}:", f"{USER}:{PASSWORD} "),
    *(f"\n {USER}:{PASSWORD}", f"k:{USER}:{PASSWORD}\n", f"\n#\n\n {USER}:{PASSWORD}"),
    *("vpce-", "email-smtp.", "email-smtp.aa-aaaa", f"{HOST} ", f"vpce-a.{HOST}\n"),
    *("client_send=\\\n", "client_send=A\n", f"client_send=:{USER}:{PASSWORD}\n"),
    *("client_send=^^^^\n", f'client_send=":{USER}:\\x42{PASSWORD[1:]}"\n', "hide hide "),
    *("A=b\n", f"client_send=A\nA=^{USER}^{PASSWORD}\n", "A=A^A\n", "a=b\n", 'A="', '="', "='"),
    *("PORT=1\n", "$port=1;", "'port'=>1,", "port 1\n", "password ", "account a\n", "inline:{ a= "),
    *(
        "define('",
        "define( ",
        "const A = ",
        "->",
        "$a->",
        "->Host=",
        "$a=",
        "['a']",
        "a" * 130 + "=",
    ),
    f"define('A_USER','{USER}');define('A_PASS','{PASSWORD}');",
    f"$a->Username='{USER}';$a->Password='{PASSWORD}';",
    *("smtp://", f"smtp://{USER}:", f"smtp://{USER}:{PASSWORD}@x ", f"static:{USER}:{PASSWORD} "),
    *(
        f"A_USER={USER}\nA_PASS={PASSWORD}\n",
        f"user {USER}\npassword {PASSWORD}\n",
        f"{USER}:{RAW}\n",
    ),
]
STARTS = ["", f"client_send=A\nA=^{USER}^{PASSWORD}\ninline:\n"]
SIZE = 256 * 1024


@pytest.mark.parametrize("unit", UNITS, ids=range(len(UNITS)))
def test_time_is_in_proportion_to_the_length(unit: str) -> None:
    """A quarter of a megabyte of anything repeated is read at once, not in minutes."""
    for start in STARTS:
        text = (start + unit * (SIZE // len(unit)))[:SIZE]
        for parser in ALL_PARSERS:
            began = time.process_time()
            for _item in parser.find(text):
                pass
            assert time.process_time() - began < 5.0, parser.name
