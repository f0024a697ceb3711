"""
Mail from a PHP application: a script with PHPMailer, run by the PHP command line.

The application knows the local MTA and no SES credential. Where PHP or PHPMailer is missing,
`php_available` says so and the caller sends the same mails with Python's smtplib.

`send_by_php` sends a number of mails and waits; `sesguard.sandbox.mail_load` runs the same script
in the background, at a pace, until a file tells it to stop.
"""

import json
import smtplib
from email.message import EmailMessage
from pathlib import Path
from typing import Final

from sesguard.errors import SandboxError
from sesguard.system.files import find_program, write_atomic
from sesguard.system.processes import run_program

_PHPMAILER: Final = (
    Path("/usr/share/php/libphp-phpmailer/src"),
    Path("/usr/share/php/PHPMailer/src"),
    Path("/usr/share/php/PHPMailer6/src"),
    Path("/usr/share/php/PHPMailer"),
)
_TIMEOUT_S: Final = 300.0

_SCRIPT: Final = """\
<?php
use PHPMailer\\PHPMailer\\PHPMailer;
foreach (['Exception', 'SMTP', 'PHPMailer'] as $class) { require $argv[1] . "/$class.php"; }
[$port, $sender, $domain, $first, $count, $interval_ms, $stop_file] = array_slice($argv, 2);
$mail = new PHPMailer(true);
$mail->isSMTP();
$mail->Host = '127.0.0.1';
$mail->Port = (int) $port;
$mail->SMTPAuth = false;
$mail->SMTPAutoTLS = false;
$mail->SMTPKeepAlive = true;
$mail->setFrom($sender);
$sent = 0;
$problem = '';
$next = hrtime(true);
for ($number = (int) $first; $number < $first + $count; $number++) {
    if ($stop_file !== '' && file_exists($stop_file)) { break; }
    $mail->clearAddresses();
    $mail->addAddress("customer$number@$domain");
    $mail->Subject = "Order $number";
    $mail->Body = "Thank you for order $number.\\n";
    try {
        $mail->send();
        $sent++;
    } catch (\\Exception $error) {
        $problem = $error->getMessage() . json_encode($mail->getSMTPInstance()->getError());
    }
    $next += $interval_ms * 1000000;
    if ($next > hrtime(true)) { usleep(intdiv($next - hrtime(true), 1000)); }
}
$mail->smtpClose();
echo json_encode(['sent' => $sent, 'problem' => $problem]), "\\n";
"""


def php_available() -> bool:
    """Whether PHP and PHPMailer are installed."""
    return find_program("php") is not None and _phpmailer() is not None


def send_by_php(
    directory: Path,
    port: int,
    *,
    sender: str,
    domain: str,
    count: int,
    first: int = 1,
    run_as: int | None = None,
) -> int:
    """
    Send `count` mails, numbered from `first`, through the MTA on `port`.

    Args:
        directory: Where the script is written.
        port: The MTA's port on the loopback.
        sender: From address.
        domain: Domain of the recipients ``customerN``.
        count: How many.
        first: Number of the first one.
        run_as: Uid and gid to run it with, which root may choose; None: our own.

    Returns:
        How many the MTA accepted.

    Raises:
        SandboxError: PHP failed.
    """
    command = php_command(directory, port, sender=sender, domain=domain, count=count, first=first)
    if run_as is not None:
        command = ["setpriv", f"--reuid={run_as}", f"--regid={run_as}", "--clear-groups", *command]
    completed = run_program(command, timeout_s=_TIMEOUT_S)
    if not completed.ok:
        raise php_failed(completed.output + completed.errors)
    return read_php_report(completed.output)


def php_command(
    directory: Path,
    port: int,
    *,
    sender: str,
    domain: str,
    count: int,
    first: int = 1,
    interval_ms: int = 0,
    stop_file: Path | None = None,
) -> list[str]:
    """
    Write the script, and give the command that runs it.

    Args:
        directory: Where the script is written.
        port: The MTA's port on the loopback.
        sender: From address.
        domain: Domain of the recipients ``customerN``.
        count: How many at most.
        first: Number of the first one.
        interval_ms: From the beginning of one mail to that of the next; 0 is as fast as it can.
        stop_file: It ends when this file is there.

    Raises:
        SandboxError: PHP or PHPMailer is not installed.
    """
    php, library = find_program("php"), _phpmailer()
    if php is None or library is None:
        raise SandboxError("PHP or PHPMailer is not installed")
    script = directory / "shop.php"
    write_atomic(script, _SCRIPT.encode(), mode=0o644)
    arguments = (library, port, sender, domain, first, count, interval_ms, stop_file or "")
    return [str(php), str(script), *map(str, arguments)]


def read_php_report(output: str) -> int:
    """
    How many mails the MTA accepted, from what the script printed.

    Raises:
        SandboxError: It refused one, or the script broke.
    """
    try:
        report = json.loads(output.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise php_failed(output) from None
    if report["problem"]:
        raise SandboxError(
            "the MTA took {sent} mails and refused others: {reason}",
            sent=report["sent"],
            reason=report["problem"][:300],
        )
    return int(report["sent"])


def php_failed(output: str) -> SandboxError:
    """The error for a script that broke."""
    return SandboxError("the PHP application failed: {reason}", reason=output.strip()[:300])


def send_by_python(port: int, *, sender: str, domain: str, count: int, first: int = 1) -> int:
    """The same mails without PHP; see `send_by_php`."""
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
        for number in range(first, first + count):
            mail = EmailMessage()
            mail["From"], mail["To"] = sender, f"customer{number}@{domain}"
            mail["Subject"] = f"Order {number}"
            mail.set_content(f"Thank you for order {number}.\n")
            client.send_message(mail)
    return count


def _phpmailer() -> Path | None:
    return next((path for path in _PHPMAILER if (path / "PHPMailer.php").exists()), None)
