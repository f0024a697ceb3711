"""sesguard send: one message, by the MTA or straight to SES."""

import email
import email.policy
from email.message import EmailMessage
from pathlib import Path

import pytest
import trustme

from rigs.command_line import Cli
from rigs.smtp_peer import PASSWORD, USER, Server
from sesguard.system.files import find_program


@pytest.fixture
def ready(cli: Cli, config: Path, host: Path, ses: Server, authority: trustme.CA) -> Path:
    """A host whose credential works at the server that stands for SES."""
    ca_file = host / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    config.write_text(
        config.read_text().replace(
            'regions = ["us-east-1"]\n',
            f'regions = ["us-east-1"]\nhost = "127.0.0.1"\nport = {ses.port}\n'
            f'ca_file = "{ca_file}"\ncanary_sender = "canary@example.com"\n',
        )
    )
    done = cli("credential", "import", "--stdin", stdin=f"{USER}:{PASSWORD}\n")
    assert 0 == done.code, done.err
    return host


def _program(config: Path, directory: Path, script: str) -> None:
    """Name a script as the host's mail program."""
    program = directory / "mta"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    with config.open("a") as settings:
        settings.write(f'\n[target.exim]\nbinary = "{program}"\n')


def test_direct(cli: Cli, ready: Path, ses: Server) -> None:
    """The vault's credential sends the message, and SES's id is printed."""
    result = cli("send", "--to", "rcpt@example.net", "--via", "direct")

    assert 0 == result.code, result.err
    assert "0100018f5a2b3c4d-0001-4e6f-8a9b-0123456789ab-000000\n" == result.out
    [envelope] = ses.inbox.messages
    assert ("canary@example.com", ["rcpt@example.net"]) == (envelope.mail_from, envelope.rcpt_tos)
    message = _parsed(envelope.content)
    assert ("canary@example.com", "rcpt@example.net") == (message["From"], message["To"])
    assert message["Message-ID"].endswith("@example.com>")
    assert "auto-generated" == message["Auto-Submitted"]


def _parsed(content: bytes | str | None) -> EmailMessage:
    assert isinstance(content, bytes)
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def test_direct_in_portuguese(cli: Cli, ready: Path, ses: Server) -> None:
    """A subject and a body with accents arrive as they were written, in ASCII on the wire."""
    result = cli(
        "send", "--to", "r@example.net", "--via", "direct", environment={"LANGUAGE": "pt_BR"}
    )

    assert 0 == result.code, result.err
    content = ses.inbox.messages[0].content
    assert isinstance(content, bytes)
    assert content.isascii()


@pytest.mark.parametrize(
    ("answer", "code", "hint"),
    [
        ("454 Throttling failure: Maximum sending rate exceeded", 75, ""),
        ("554 Message rejected: Email address is not verified.", 4, "verify the address"),
        ("554 Access denied: User `u' is not authorized to perform", 4, "IAM policy"),
        ("554 Message rejected: Sending paused for this account.", 4, "notice that AWS sent"),
        ("554 Transaction failed", 4, ""),
    ],
)
def test_direct_refused(
    cli: Cli, ready: Path, ses: Server, answer: str, code: int, hint: str
) -> None:
    """SES's own words are shown with what to do; a temporary refusal is exit 75."""
    ses.inbox.answer = answer

    result = cli("send", "--to", "rcpt@example.net", "--via", "direct")

    assert (code, "") == (result.code, result.out)
    assert answer in result.err
    assert hint in result.err


def test_direct_with_a_wrong_password(cli: Cli, ready: Path) -> None:
    """A credential that SES does not take is exit 4, and is not shown."""
    wrong = PASSWORD[:-1] + "X"
    cli("credential", "import", "--stdin", stdin=f"{USER}:{wrong}\n")

    result = cli("send", "--to", "rcpt@example.net", "--via", "direct")

    assert 4 == result.code
    assert f"127.0.0.1 refused the login of {USER}: 535" in result.err
    assert wrong not in result.err


def test_nobody_there(cli: Cli, ready: Path, config: Path) -> None:
    """An endpoint that cannot be reached is exit 75."""
    text = config.read_text()
    port = next(line for line in text.splitlines() if line.startswith("port"))
    config.write_text(text.replace(port, "port = 9"))

    assert 75 == cli("send", "--to", "rcpt@example.net", "--via", "direct").code


def test_mta(cli: Cli, ready: Path, config: Path, tmp_path: Path, ses: Server) -> None:
    """The mail program gets the message as PHP would give it, and its Message-ID is printed."""
    _program(config, tmp_path, f'echo "$@" > {tmp_path}/arguments; cat > {tmp_path}/message')

    result = cli("send", "--to", "rcpt@example.net", "--from", "me@example.com")

    assert 0 == result.code, result.err
    assert "-i -t -f me@example.com\n" == (tmp_path / "arguments").read_text()
    content = (tmp_path / "message").read_bytes()
    assert b"\r" not in content
    message = _parsed(content)
    assert result.out.strip() == message["Message-ID"]
    assert "rcpt@example.net" == message["To"]
    assert [] == ses.inbox.messages


def test_mta_with_its_own_configuration(
    cli: Cli, ready: Path, config: Path, tmp_path: Path
) -> None:
    """A private Exim is called with its configuration file."""
    _program(config, tmp_path, f'echo "$@" > {tmp_path}/arguments; cat > /dev/null')
    with config.open("a") as settings:
        settings.write(f'config_file = "{tmp_path}/exim.conf"\n')

    cli("send", "--to", "rcpt@example.net")

    arguments = (tmp_path / "arguments").read_text()
    assert arguments.startswith(f"-C {tmp_path}/exim.conf -i -t")


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [(75, 75, "asks to try again later: queue full"), (1, 4, "(exit 1): queue full")],
)
def test_mta_refuses(
    cli: Cli,
    ready: Path,
    config: Path,
    tmp_path: Path,
    status: int,
    code: int,
    message: str,
) -> None:
    """EX_TEMPFAIL of the mail program is ours too; another status is a failure."""
    _program(config, tmp_path, f"cat > /dev/null; echo queue full >&2; exit {status}")

    result = cli("send", "--to", "rcpt@example.net", "--via", "mta")

    assert code == result.code
    assert message in result.err


@pytest.mark.skipif(find_program("sendmail", "exim4", "exim") is not None, reason="has an MTA")
def test_no_mta(cli: Cli, ready: Path, ses: Server) -> None:
    """Without a mail program auto goes straight to SES, and --via mta says so."""
    assert 2 == cli("send", "--to", "rcpt@example.net", "--via", "mta").code
    assert 0 == cli("send", "--to", "rcpt@example.net").code


@pytest.mark.parametrize("address", ["", "nobody", "a b@example.net", "a@b.c\nBcc: x@example.org"])
def test_address_that_is_none(cli: Cli, ready: Path, ses: Server, address: str) -> None:
    """An address that could add to the message or the dialogue is refused."""
    result = cli("send", "--to", address, "--via", "direct")

    assert 2 == result.code
    assert [] == ses.inbox.messages


def test_sender_is_needed(cli: Cli, host: Path) -> None:
    """Without --from and canary_sender there is nobody to send as."""
    result = cli("send", "--to", "rcpt@example.net")

    assert 2 == result.code
    assert "hint: add --from ADDRESS, or set credentials.ses.canary_sender" in result.err


def test_credential_is_needed(cli: Cli, host: Path, config: Path) -> None:
    """The direct way needs a credential in the vault."""
    result = cli("send", "--to", "r@example.net", "--from", "s@example.com", "--via", "direct")

    assert 4 == result.code
    assert "credential ses has no CURRENT version" in result.err
