"""Faults on demand, at every stage."""

import smtplib
import threading
import time

import pytest

from rigs.sandbox import Login, SandboxRig, eventually, mail, transaction
from sesguard.sandbox.faults import Faults
from sesguard.sandbox.model import Fault, FaultKind, Stage

REPLIES = {
    FaultKind.REPLY_421: (421, "Too many concurrent SMTP connections"),
    FaultKind.REPLY_451: (451, "Temporary service failure"),
    FaultKind.REPLY_454: (454, "Throttling failure: Maximum sending rate exceeded"),
}
IN_A_TRANSACTION = (Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.ACCEPTED)


@pytest.mark.parametrize("stage", IN_A_TRANSACTION)
@pytest.mark.parametrize("kind", REPLIES)
def test_a_temporary_reply_in_a_transaction(rig: SandboxRig, stage: Stage, kind: FaultKind) -> None:
    """The reply stands where the normal one would, and mail is taken only after ACCEPTED."""
    login = rig.login()
    rig.client.set_faults(Fault(stage, kind))

    assert rig.send(login) == REPLIES[kind]
    assert (1 if stage is Stage.ACCEPTED else 0) == len(rig.client.inbox())


@pytest.mark.parametrize("kind", REPLIES)
def test_a_temporary_reply_instead_of_the_banner(rig: SandboxRig, kind: FaultKind) -> None:
    """The server turns clients away at the door."""
    rig.client.set_faults(Fault(Stage.CONNECT, kind))

    with pytest.raises(smtplib.SMTPConnectError) as caught, rig.plain_connection():
        pass
    assert REPLIES[kind][0] == caught.value.smtp_code


@pytest.mark.parametrize("kind", REPLIES)
def test_a_temporary_reply_to_ehlo(rig: SandboxRig, kind: FaultKind) -> None:
    """EHLO is refused."""
    rig.client.set_faults(Fault(Stage.EHLO, kind))
    with rig.plain_connection() as connection:
        assert REPLIES[kind][0] == connection.ehlo()[0]


@pytest.mark.parametrize(
    ("kind", "reply"),
    [
        (FaultKind.REPLY_421, (421, b"Too many concurrent SMTP connections")),
        (FaultKind.REPLY_451, (451, b"Temporary service failure")),
        (FaultKind.REPLY_454, (454, b"Temporary authentication failure")),
    ],
)
def test_a_temporary_reply_to_auth(
    rig: SandboxRig, kind: FaultKind, reply: tuple[int, bytes]
) -> None:
    """AUTH fails for a while, which is not 535."""
    rig.client.set_faults(Fault(Stage.AUTH, kind))
    with rig.tls_connection() as connection:
        assert reply == connection.docmd("AUTH PLAIN AGEAYg==")


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize(
    "fault", [(FaultKind.DROP, 3600.0), (FaultKind.STALL, 0.05)], ids=["drop", "stall"]
)
def test_a_dropped_or_stalled_connection(
    rig: SandboxRig, stage: Stage, fault: tuple[FaultKind, float]
) -> None:
    """The client loses the connection; what was not accepted is not in the inbox."""
    login = rig.login()
    rig.client.set_faults(Fault(stage, fault[0], delay_s=fault[1]))

    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionResetError)):
        rig.send(login)
    assert (1 if stage is Stage.ACCEPTED else 0) == len(rig.client.inbox())
    eventually(lambda: all(item.closed_at for item in rig.client.connections()))


@pytest.mark.parametrize("stage", Stage)
def test_a_slow_reply(rig: SandboxRig, stage: Stage) -> None:
    """Everything goes well, later."""
    login = rig.login()
    rig.client.set_faults(Fault(stage, FaultKind.SLOW, count=1, delay_s=0.2))
    began = time.monotonic()

    assert rig.send(login)[0] == 250
    assert time.monotonic() - began >= 0.2


def test_slowness_is_not_cut_short_by_the_idle_timeout(rig: SandboxRig) -> None:
    """The idle time-out is about the client, not about our own slowness."""
    login = rig.login()
    rig.client.configure(idle_timeout_s=0.2)
    rig.client.set_faults(Fault(Stage.DATA, FaultKind.SLOW, count=1, delay_s=0.5))

    assert rig.send(login)[0] == 250


def test_a_stalled_server_serves_others(rig: SandboxRig) -> None:
    """One connection that hangs does not hang the next."""
    login = rig.login()
    rig.client.set_faults(Fault(Stage.DATA, FaultKind.STALL, count=1, delay_s=20))
    stalled = threading.Thread(target=_send_and_lose, args=(rig, login))
    stalled.start()
    try:
        eventually(lambda: not rig.client.status().faults)

        assert rig.send(login)[0] == 250
    finally:
        stalled.join()


def test_a_count_runs_down(rig: SandboxRig) -> None:
    """After its count a fault is over; faults of one stage strike in order."""
    login = rig.login()
    rig.client.set_faults(
        Fault(Stage.DATA, FaultKind.REPLY_451, count=2),
        Fault(Stage.DATA, FaultKind.REPLY_454, count=1),
    )
    with rig.session(login) as connection:
        codes = [transaction(connection)[0] for _ in range(4)]

    assert [451, 451, 454, 250] == codes
    assert rig.client.status().faults == ()


def test_faults_can_be_cleared(rig: SandboxRig) -> None:
    """A fault without a count strikes until it is cleared."""
    login = rig.login()
    rig.client.set_faults(Fault(Stage.MAIL, FaultKind.REPLY_451))
    with rig.session(login) as connection:
        codes = [transaction(connection)[0] for _ in range(3)]
        rig.client.clear_faults()
        codes.append(transaction(connection)[0])

    assert [451, 451, 451, 250] == codes


def test_a_lost_reply_makes_a_duplicate(rig: SandboxRig) -> None:
    """A client that sends again after a lost reply is seen to have sent twice."""
    login = rig.login()
    rig.client.set_faults(Fault(Stage.ACCEPTED, FaultKind.DROP, count=1))
    content = mail(headers={"Message-ID": "<1@example.com>"})

    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionResetError)):
        rig.send(login, content)
    rig.send(login, content)

    assert ["<1@example.com>"] * 2 == [item.header("message-id") for item in rig.client.inbox()]


def test_a_fault_of_count_zero_is_none() -> None:
    """Nothing strikes that may not strike once."""
    faults = Faults()
    faults.set([Fault(Stage.DATA, FaultKind.DROP, count=0)])

    assert faults.take(Stage.DATA) is None


def _send_and_lose(rig: SandboxRig, login: Login) -> None:
    with rig.session(login) as connection:
        connection.mail("app@example.com")
        connection.rcpt("user@example.net")
        connection.docmd("DATA")
        connection.send(mail() + b".\r\n")
        assert connection.sock is not None
        connection.sock.settimeout(0.3)
        with pytest.raises((TimeoutError, smtplib.SMTPServerDisconnected)):
            connection.getreply()
