"""The SMTP endpoint says what SES says."""

import base64
import re
import smtplib

import pytest

from rigs.sandbox import Login, SandboxRig, mail, transaction
from sesguard.core.secret import Secret

MAX_BYTES = 40 * 1024 * 1024


def plain(user: str, password: str) -> str:
    """The initial response of AUTH PLAIN."""
    return base64.b64encode(f"\0{user}\0{password}".encode()).decode()


def encoded(text: str) -> str:
    """Base64 of a text."""
    return base64.b64encode(text.encode()).decode()


def test_the_banner_is_that_of_ses(rig: SandboxRig) -> None:
    """The first line names the host, ESMTP and a service instance."""
    with smtplib.SMTP() as connection:
        code, text = connection.connect("127.0.0.1", rig.info.starttls_port)

        assert code == 220
        assert re.fullmatch(
            rb"email-smtp\.amazonaws\.com ESMTP SimpleEmailService-d-[A-Z0-9]{9} [A-Za-z0-9]{20}",
            text,
        )


def test_ehlo_offers_starttls_and_no_auth_before_tls(rig: SandboxRig) -> None:
    """In the clear there is STARTTLS, and nothing to log in with."""
    with rig.plain_connection() as connection:
        assert (
            250,
            b"email-smtp.amazonaws.com\n8BITMIME\nSIZE 41943040\nSTARTTLS\nOk",
        ) == connection.ehlo()


def test_ehlo_offers_plain_and_login_after_tls(rig: SandboxRig) -> None:
    """Under TLS there are the two mechanisms of SES, and no second STARTTLS."""
    with rig.tls_connection() as connection:
        assert (
            250,
            b"email-smtp.amazonaws.com\n8BITMIME\nSIZE 41943040\nAUTH PLAIN LOGIN\nOk",
        ) == connection.ehlo()


def test_the_wrapper_port_offers_auth_at_once(rig: SandboxRig) -> None:
    """Where TLS begins with the connection, mail goes out without STARTTLS."""
    login = rig.login()
    with smtplib.SMTP_SSL(
        "localhost", rig.info.tls_port, timeout=10, context=rig.client_context()
    ) as connection:
        connection.login(login.user, login.password.reveal())

        assert transaction(connection)[0] == 250
        assert connection.docmd("STARTTLS")[0] == 454
    assert [True] == [item.tls_wrapper for item in rig.client.connections()]


@pytest.mark.parametrize("command", ["MAIL FROM:<a@example.com>", "AUTH PLAIN AAAA", "AUTH LOGIN"])
def test_nothing_is_taken_in_the_clear(rig: SandboxRig, command: str) -> None:
    """Before STARTTLS, mail and AUTH are refused with 530."""
    with rig.plain_connection() as connection:
        connection.ehlo()

        assert connection.docmd(command) == (530, b"Must issue a STARTTLS command first")


def test_mail_without_auth_is_refused(rig: SandboxRig) -> None:
    """Under TLS but not logged in, MAIL FROM gets 530."""
    with rig.tls_connection() as connection:
        assert connection.mail("app@example.com") == (530, b"Authentication required")


def test_starttls_is_possible_once(rig: SandboxRig) -> None:
    """A second STARTTLS is refused and the session goes on."""
    with rig.tls_connection() as connection:
        code, text = connection.docmd("STARTTLS")

        assert (454, b"TLS not available due to temporary reason: TLS already active") == (
            code,
            text,
        )
        assert connection.noop()[0] == 250


def test_auth_plain_with_an_initial_response(rig: SandboxRig) -> None:
    """The right user and password get 235 in one round trip."""
    login = rig.login()
    with rig.tls_connection() as connection:
        reply = connection.docmd(f"AUTH PLAIN {plain(login.user, login.password.reveal())}")

        assert reply == (235, b"Authentication successful.")


def test_auth_plain_with_a_challenge(rig: SandboxRig) -> None:
    """Without an initial response there is an empty challenge."""
    login = rig.login()
    with rig.tls_connection() as connection:
        assert connection.docmd("AUTH PLAIN") == (334, b"")
        assert connection.docmd(plain(login.user, login.password.reveal())) == (
            235,
            b"Authentication successful.",
        )


def test_auth_login_asks_for_user_and_password(rig: SandboxRig) -> None:
    """The challenges are the words Username and Password in base64."""
    login = rig.login()
    with rig.tls_connection() as connection:
        assert connection.docmd("AUTH LOGIN") == (334, encoded("Username:").encode())
        assert connection.docmd(encoded(login.user)) == (334, encoded("Password:").encode())
        assert connection.docmd(encoded(login.password.reveal())) == (
            235,
            b"Authentication successful.",
        )


def test_the_mechanism_may_be_in_lower_case(rig: SandboxRig) -> None:
    """``auth plain`` is ``AUTH PLAIN``."""
    login = rig.login()
    with rig.tls_connection() as connection:
        reply = connection.docmd(f"auth plain {plain(login.user, login.password.reveal())}")

        assert reply[0] == 235


@pytest.mark.parametrize("user", ["AKIAIOSFODNN7EXAMPLE", "nobody", "\udcff", ""])
def test_an_unknown_user_is_refused(rig: SandboxRig, user: str) -> None:
    """A user that is no key of the account gets 535."""
    response = b"\0" + user.encode("utf-8", "surrogateescape") + b"\0secret"
    with rig.tls_connection() as connection:
        reply = connection.docmd(f"AUTH PLAIN {base64.b64encode(response).decode()}")

        assert reply == (535, b"Authentication Credentials Invalid")


def test_a_wrong_password_is_refused_and_may_be_tried_again(rig: SandboxRig) -> None:
    """After 535 the same connection can log in with the right password."""
    login = rig.login()
    with rig.tls_connection() as connection:
        wrong = connection.docmd(f"AUTH PLAIN {plain(login.user, 'wrong')}")
        right = connection.docmd(f"AUTH PLAIN {plain(login.user, login.password.reveal())}")

        assert (535, b"Authentication Credentials Invalid") == wrong
        assert right[0] == 235


def test_a_version_2_password_is_named_as_such(rig: SandboxRig) -> None:
    """A password of the old signature gets the reply that SES gives since 2021."""
    user = rig.login().user
    # Published by AWS for its example secret key; see the tests of core.
    old = "An60U4ZD3sd4fg+FvXUjayOipTt8LO4rUUmhpdX6ctDy"
    with rig.tls_connection() as connection:
        code, text = connection.docmd(f"AUTH PLAIN {plain(user, old)}")

        assert code == 535
        assert text.startswith(b"Signature Version 2 is deprecated")


def test_a_password_of_another_region_is_refused(rig: SandboxRig) -> None:
    """An SMTP password works in its own region only."""
    key = rig.seed()

    with pytest.raises(smtplib.SMTPAuthenticationError) as caught:
        rig.send(rig.login(key, region="eu-west-1"))
    assert caught.value.smtp_code == 535

    rig.client.configure(region="eu-west-1")
    rig.aws("ses", region_name="eu-west-1").verify_domain_identity(Domain="example.com")
    assert rig.send(rig.login(key, region="eu-west-1"))[0] == 250


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (["AUTH"], 501),
        (["AUTH CRAM-MD5"], 504),
        (["AUTH PLAIN !!!"], 501),
        (["AUTH PLAIN AAAA AAAA"], 501),
        (["AUTH PLAIN", "*"], 501),
        (["AUTH LOGIN", "*"], 501),
        (["AUTH LOGIN", "!"], 501),
        (["AUTH PLAIN " + encoded("no separators")], 501),
        (["AUTH PLAIN " + encoded("\0a\0b\0c")], 501),
    ],
)
def test_auth_garbage_is_a_syntax_error(rig: SandboxRig, lines: list[str], code: int) -> None:
    """A broken AUTH exchange is answered with 50x, and the session can go on."""
    with rig.tls_connection() as connection:
        reply = (0, b"")
        for line in lines:
            reply = connection.docmd(line)

        assert reply[0] == code
        assert connection.noop()[0] == 250


def test_a_message_gets_an_id_like_those_of_ses(rig: SandboxRig) -> None:
    """``250 Ok`` and an id, which is that of the message in the inbox."""
    code, text = rig.send(rig.login())

    assert code == 250
    assert re.fullmatch(r"Ok 0100[0-9a-f]{12}-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}-0{6}", text)
    assert [text.removeprefix("Ok ")] == [message.id for message in rig.client.inbox()]


def test_several_messages_in_one_session(rig: SandboxRig) -> None:
    """A session may send many messages; each has its own id."""
    with rig.session(rig.login()) as connection:
        texts = {transaction(connection)[1] for _ in range(20)}

    assert len(texts) == 20
    assert [20] == [item.messages for item in rig.client.connections()]


@pytest.mark.parametrize(
    ("sender", "reply"),
    [
        ("", (501, b"Invalid MAIL FROM address provided")),
        ("AKIAIOSFODNN7EXAMPLE", (501, b"Invalid MAIL FROM address provided")),
        ("a@", (553, b"<a@> Invalid email address")),
    ],
)
def test_a_bad_envelope_sender(rig: SandboxRig, sender: str, reply: tuple[int, bytes]) -> None:
    """SES takes no null sender and no address without a domain."""
    with rig.session(rig.login()) as connection:
        assert connection.docmd(f"MAIL FROM:<{sender}>") == reply


@pytest.mark.parametrize(
    ("recipient", "text"),
    [("user", b"<user> Invalid email address"), ("@x", b"<@x> Invalid email address")],
)
def test_a_bad_recipient(rig: SandboxRig, recipient: str, text: bytes) -> None:
    """A recipient without a local part or domain gets 553."""
    with rig.session(rig.login()) as connection:
        connection.mail("app@example.com")

        assert connection.docmd(f"RCPT TO:<{recipient}>") == (553, text)


def test_the_51st_recipient_is_deferred(rig: SandboxRig) -> None:
    """Fifty recipients are taken; a further one gets 452 and the message goes to the fifty."""
    with rig.session(rig.login()) as connection:
        connection.mail("app@example.com")
        codes = [connection.rcpt(f"user{number}@example.net")[0] for number in range(50)]
        surplus = connection.rcpt("one-more@example.net")
        connection.data(mail())

    assert [250] * 50 == codes
    assert surplus == (452, b"Too many recipients")
    assert [50] == [len(message.recipients) for message in rig.client.inbox()]


def test_a_message_beyond_40_mb_is_refused_and_the_session_goes_on(rig: SandboxRig) -> None:
    """The limit holds for what is really sent."""
    line = b"x" * 998 + b"\r\n"
    too_long = mail() + line * (MAX_BYTES // len(line) + 1)
    with rig.session(rig.login()) as connection:
        assert transaction(connection, too_long) == (552, "Message is too long.")
        assert transaction(connection)[0] == 250


def test_a_message_just_below_40_mb_is_taken(rig: SandboxRig) -> None:
    """A large message arrives whole."""
    line = b"x" * 998 + b"\r\n"
    large = mail() + line * ((MAX_BYTES - 1000) // len(line))

    code, text = rig.send(rig.login(), large)

    assert code == 250
    assert large == rig.client.raw_message(text.removeprefix("Ok "))


def test_an_announced_size_beyond_the_limit_is_refused(rig: SandboxRig) -> None:
    """SIZE= in MAIL FROM spares both sides the transfer."""
    with rig.session(rig.login()) as connection:
        reply = connection.docmd(f"MAIL FROM:<app@example.com> SIZE={MAX_BYTES + 1}")

        assert reply == (552, b"Message is too long.")


def test_an_idle_client_is_told_and_disconnected(rig: SandboxRig) -> None:
    """After the idle time-out there is 451 and the end of the connection."""
    rig.client.configure(idle_timeout_s=0.2)
    with rig.plain_connection() as connection:
        assert connection.getreply() == (451, b"Timeout waiting for data from client.")
        with pytest.raises(smtplib.SMTPServerDisconnected):
            connection.getreply()


def test_the_received_message_is_described(rig: SandboxRig) -> None:
    """The inbox tells who sent what from where, and how it was protected."""
    key = rig.seed()
    content = mail(headers={"X-Note": "one\r\n two"})

    rig.send(rig.login(key), content, source="127.0.0.9", recipients=("a@x.org", "b@x.org"))

    (message,) = rig.client.inbox()
    assert message.source_address == "127.0.0.9"
    assert message.user_name == key.user_name
    assert message.access_key_id == key.access_key_id
    assert message.envelope_sender == "app@example.com"
    assert message.recipients == ("a@x.org", "b@x.org")
    assert message.header("x-note") == "one two"
    assert message.header("absent") is None
    assert message.tls_version in {"TLSv1.2", "TLSv1.3"}
    assert message.size == len(content)
    assert content == rig.client.raw_message(message.id)


def test_a_dot_at_the_start_of_a_line_survives(rig: SandboxRig) -> None:
    """Transparency (RFC 5321 4.5.2) is undone."""
    content = mail() + b".\r\n..two\r\n.end\r\n"

    _, text = rig.send(rig.login(), content)

    assert content == rig.client.raw_message(text.removeprefix("Ok "))


def test_login_objects_do_not_show_their_password(rig: SandboxRig) -> None:
    """Nothing of a password is in the connection log."""
    login = Login(rig.login().user, Secret("BsecretBsecret"))
    with pytest.raises(smtplib.SMTPAuthenticationError):
        rig.send(login)

    shown = repr(rig.client.connections())
    assert login.user in shown
    assert "Bsecret" not in shown
