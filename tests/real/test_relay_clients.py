"""
G2: real programs send through the relay, none of them holds an SES secret, no byte is changed.

PHPMailer and ``mail()``, swaks, msmtp, smtplib and Postfix, over TCP and Unix sockets; each one
is known by its uid, or by a token of its own.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.exim import wait_for
from rigs.postfix import UID as POSTFIX_UID
from rigs.postfix import needs_postfix, running_postfix
from rigs.relaying import PYTHON, SHOP, SHOP_UID, RelayHost, make_relay_host, needs_users
from rigs.tripwire import Tripwire
from sesguard.sandbox.php_mail import php_available
from sesguard.sandbox.process import Sandbox
from sesguard.sandbox.seed import SeededKey

pytestmark = [pytest.mark.real, needs_users]

needs_php = pytest.mark.skipif(not php_available(), reason="left out: PHP or PHPMailer is not here")
needs_swaks = pytest.mark.skipif(shutil.which("swaks") is None, reason="left out: no swaks here")
needs_msmtp = pytest.mark.skipif(shutil.which("msmtp") is None, reason="left out: no msmtp here")

BODY = (
    "Olá, a sua encomenda chegou.\r\n.\r\n.. dots\r\n\r\nFrom here on: trailing blanks  \r\n"
    + "x" * 900
    + "\r\n\tlast line\r\n"
).encode()
"""Eight-bit text, lines of dots, blank and long lines, blanks at an end."""

TEXT = BODY.removesuffix(b"\r\n")
"""For programs that end the text with a line end of their own."""
LONGER = BODY + b"\r\n"
"""PHPMailer's SMTP sends the empty line after the last line end; so does ``mail()``, once more."""

PHP_SCRIPT = """\
<?php
use PHPMailer\\\\PHPMailer\\\\PHPMailer;
$task = json_decode(stream_get_contents(STDIN), true);
if ($task['how'] === 'mail') {
    $sent = mail($task['to'], 'an order', $task['body'],
        "From: {$task['from']}\\r\\nContent-Type: text/plain; charset=utf-8\\r\\n"
        . "Content-Transfer-Encoding: 8bit", "-f{$task['from']}");
    exit($sent ? 0 : 1);
}
foreach (['Exception', 'SMTP', 'PHPMailer'] as $class) { require "{$task['library']}/$class.php"; }
$mail = new PHPMailer(true);
$mail->CharSet = 'utf-8';
$mail->Encoding = '8bit';
if ($task['how'] === 'smtp') {
    $mail->isSMTP();
    $mail->Host = '127.0.0.1';
    $mail->Port = $task['port'];
    if (isset($task['token'])) {
        $mail->SMTPAuth = true;
        $mail->Username = $task['app'];
        $mail->Password = $task['token'];
        $mail->AuthType = $task['mechanism'];
    }
} elseif ($task['how'] === 'sendmail') {
    $mail->isSendmail();
    $mail->Sendmail = $task['sendmail'];
} else {
    $mail->isMail();
}
$mail->setFrom($task['from']);
$mail->Sender = $task['from'];
$mail->addAddress($task['to']);
$mail->Subject = 'an order';
$mail->Body = $task['body'];
$mail->send();
""".replace("\\\\", "\\")


@pytest.fixture
def host(host_directory: Path, sandbox: Sandbox, key: SeededKey) -> Iterator[RelayHost]:
    """A host with a running relay; at its end no file or process held a secret."""
    made = make_relay_host(host_directory, sandbox, key, POSTFIX_UID)
    with Tripwire([host_directory], made.secrets) as tripwire, made.daemon():
        yield made
    assert [] == tripwire.hits()


def message(sender: str, recipient: str) -> bytes:
    """A message with the difficult body."""
    head = f"From: {sender}\r\nTo: {recipient}\r\nSubject: an order\r\n"
    head += "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
    return head.encode() + b"Content-Transfer-Encoding: 8bit\r\n\r\n" + BODY


def sendmail_program(host: RelayHost) -> Path:
    """The sendmail program under the name that it is installed as, pointed at this relay."""
    path = host.apps_directory / "sesguard-sendmail"
    path.write_text(
        f"#!/bin/sh\nSESGUARD_RELAY_SOCKET={host.socket_path} PYTHONPATH={host.library} "
        f"exec {PYTHON} -c 'from sesguard.relay.sendmail import run; run()' \"$@\"\n"
    )
    path.chmod(0o755)
    return path


def run_php(host: RelayHost, to: str, *options: str, **task: object) -> None:
    """Run the script as the shop's user."""
    from sesguard.sandbox.php_mail import _phpmailer  # noqa: PLC0415

    document = {"library": str(_phpmailer()), "from": SHOP, "to": to, "body": TEXT.decode(), **task}
    (host.apps_directory / "shop.php").write_text(PHP_SCRIPT)
    completed = host.run_as(
        SHOP_UID, "php", *options, "shop.php", stdin=json.dumps(document).encode()
    )
    assert 0 == completed.returncode, completed.stdout + completed.stderr


@needs_php
def test_phpmailer_sends_by_its_uid(host: RelayHost) -> None:
    """No user, no password: the kernel says which site it is."""
    run_php(host, "b@example.net", how="smtp", port=host.port)

    assert LONGER == host.text_of("b@example.net")
    assert "shop" == host.received("b@example.net").tags["app"]


@needs_php
@pytest.mark.parametrize("mechanism", ["LOGIN", "PLAIN"])
def test_phpmailer_sends_with_a_token(host: RelayHost, mechanism: str) -> None:
    """An application that has user and password fields is given the app's name and token."""
    token = host.sesguard("app", "add", "site")
    run_php(
        host, "b@example.net", how="smtp", port=host.port, app="site", token=token,
        mechanism=mechanism,
    )  # fmt: skip

    assert LONGER == host.text_of("b@example.net")
    assert "site" == host.received("b@example.net").tags["app"]


@needs_php
@pytest.mark.parametrize("how", ["sendmail", "isMail", "mail"])
def test_php_sends_by_the_sendmail_program(host: RelayHost, how: str) -> None:
    """isSendmail() with our path, isMail() and mail() with our sendmail_path."""
    program = sendmail_program(host)
    options = ("-d", f"sendmail_path={program} -t -i")
    run_php(host, "b@example.net", *options, how=how, sendmail=str(program))

    assert (LONGER if how == "isMail" else BODY) == host.text_of("b@example.net")
    assert "shop" == host.received("b@example.net").tags["app"]


def swaks(host: RelayHost, to: str, *options: str) -> bytes:
    """Send the message with swaks as the shop's user, and give its transcript."""
    (host.apps_directory / "message").write_bytes(message(SHOP, to).removesuffix(b"\r\n"))
    completed = host.run_as(
        SHOP_UID, "swaks", "--from", SHOP, "--to", to, "--data", "@message", *options
    )
    assert 0 == completed.returncode, completed.stdout + completed.stderr
    return completed.stdout


@needs_swaks
@pytest.mark.parametrize("way", ["tcp", "unix", "pipeline"])
def test_swaks_sends(host: RelayHost, way: str) -> None:
    """Over TCP, over the Unix socket, and with pipelining."""
    tcp = ("--server", "127.0.0.1", "--port", str(host.port))
    options = {
        "tcp": tcp,
        "unix": ("--socket", str(host.socket_path)),
        "pipeline": (*tcp, "--pipeline"),
    }[way]

    transcript = swaks(host, "b@example.net", *options)

    assert b"<~  250" in transcript or b"<-  250" in transcript
    assert BODY == host.text_of("b@example.net")
    assert "shop" == host.received("b@example.net").tags["app"]


@needs_msmtp
@pytest.mark.parametrize("way", ["tcp", "unix"])
def test_msmtp_sends(host: RelayHost, way: str) -> None:
    """As most containers and cron jobs have it, by TCP or with its option socket."""
    place = ("--port", str(host.port), "--host", "127.0.0.1")
    if way == "unix":
        place = ("--socket", str(host.socket_path), "--host", "localhost")
    completed = host.run_as(
        SHOP_UID, "msmtp", "--file=/dev/null", *place, "--auth=off", "--tls=off", "--from", SHOP,
        "b@example.net", stdin=message(SHOP, "b@example.net").replace(b"\r\n", b"\n"),
    )  # fmt: skip

    assert 0 == completed.returncode, completed.stderr
    assert BODY == host.text_of("b@example.net")
    assert "shop" == host.received("b@example.net").tags["app"]


PYTHON_CLIENT = """\
import smtplib, sys
kind, port, path, *rest = sys.argv[1:]
content = sys.stdin.buffer.read()
options = ["BODY=8BITMIME"]
sender = "shop@a.example"
if kind == "lmtp":
    client = smtplib.LMTP(path)
else:
    client = smtplib.SMTP("127.0.0.1", int(port))
with client:
    if kind == "helo":
        client.helo("shop")
        options = []
    else:
        client.ehlo("shop")
    if kind == "utf8":
        options.append("SMTPUTF8")
    assert {} == client.sendmail(sender, ["b@example.net"], content, options)
"""


@pytest.mark.parametrize("kind", ["ehlo", "helo", "utf8", "lmtp"])
def test_smtplib_sends(host: RelayHost, kind: str) -> None:
    """EHLO, HELO, SMTPUTF8, and LMTP on its socket."""
    completed = host.run_as(
        SHOP_UID, PYTHON, "-c", PYTHON_CLIENT, kind, str(host.port), str(host.lmtp_path),
        stdin=message(SHOP, "b@example.net"),
    )  # fmt: skip

    assert 0 == completed.returncode, completed.stderr
    assert BODY == host.text_of("b@example.net")
    received = host.received("b@example.net")
    assert SHOP == received.envelope_sender
    assert "shop" == received.tags["app"]


@needs_postfix
@pytest.mark.parametrize("way", ["lmtp", "relayhost"])
def test_postfix_in_relay_mode(host: RelayHost, way: str) -> None:
    """LMTP to the Unix socket, or SMTP to the loopback; identified by its uid either way."""
    routes = {
        "lmtp": f"default_transport = lmtp:unix:{host.lmtp_path}",
        "relayhost": f"relayhost = [127.0.0.1]:{host.port}",
    }
    with running_postfix(host.directory / "postfix", routes[way]) as postfix:
        postfix.submit(SHOP, "b@example.net", message(SHOP, "b@example.net"))
        wait_for(lambda: "status=" in postfix.log_text(), "Postfix did not try")

        assert "status=sent (250" in postfix.log_text()
        assert BODY == host.text_of("b@example.net")
        assert "mta" == host.received("b@example.net").tags["app"]


@needs_postfix
def test_postfix_keeps_mail_while_the_relay_is_down(
    host_directory: Path, sandbox: Sandbox, key: SeededKey
) -> None:
    """Deferred, not bounced; delivered once the relay is there."""
    host = make_relay_host(host_directory, sandbox, key, POSTFIX_UID)
    route = f"relayhost = [127.0.0.1]:{host.port}"
    with running_postfix(host.directory / "postfix", route) as postfix:
        postfix.submit(SHOP, "b@example.net", message(SHOP, "b@example.net"))
        wait_for(lambda: "status=deferred" in postfix.log_text(), "Postfix did not try")
        with host.daemon():
            wait_for(lambda: "status=sent" in postfix.log_text(), "Postfix did not deliver")

        assert "status=bounced" not in postfix.log_text()
        assert ["b@example.net"] == host.recipients()
