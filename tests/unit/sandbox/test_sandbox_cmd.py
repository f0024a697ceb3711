"""``sesguard sandbox``, as a user types it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.sandbox import SandboxRig, eventually, mail
from sesguard.sandbox.process import Sandbox, find_sandbox, running_sandbox


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of a running sandbox."""
    path = tmp_path_factory.mktemp("up")
    with running_sandbox(path):
        yield path


def sesguard(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    """Run the program."""
    return subprocess.run(
        [sys.executable, "-m", "sesguard", "sandbox", *arguments],
        capture_output=True,
        timeout=60,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )


def rig_of(directory: Path) -> SandboxRig:
    """The running sandbox, empty."""
    sandbox = find_sandbox(directory)
    assert isinstance(sandbox, Sandbox)
    sandbox.client.reset()
    return SandboxRig(sandbox)


def test_up_can_be_evaluated_by_a_shell_and_outlives_it(tmp_path: Path) -> None:
    """``eval "$(sesguard sandbox up)"`` sets the environment; ``down`` ends the sandbox."""
    place = tmp_path / "it's here"
    script = (
        f'eval "$({sys.executable} -m sesguard sandbox up --directory "$1")" && '
        'printf "%s\\n" "$AWS_ENDPOINT_URL" "$SESGUARD_SANDBOX_CA_FILE" '
        '"$SESGUARD_SANDBOX_SMTP_PORT" "$SESGUARD_SANDBOX_SMTP_TLS_PORT" "$AWS_ACCESS_KEY_ID"'
    )
    shell = subprocess.run(
        ["sh", "-c", script, "sh", place], capture_output=True, timeout=60, check=True
    )
    sandbox = find_sandbox(place)
    stopped = sesguard("down", "--directory", place)

    assert sandbox is not None
    assert shell.stdout.decode().splitlines() == [
        sandbox.info.endpoint_url,
        str(place / "ca.pem"),
        str(sandbox.info.starttls_port),
        str(sandbox.info.tls_port),
        "sandbox-admin",
    ]
    assert stopped.returncode == 0
    assert find_sandbox(place) is None


def test_up_again_shows_the_one_that_runs(directory: Path) -> None:
    """With ``--json`` there is one document on standard output."""
    document = json.loads(sesguard("up", "--json", "--directory", directory).stdout)

    info = rig_of(directory).info
    assert document["version"] == 1
    assert info.pid == document["sandbox"]["pid"]
    assert info.endpoint_url == document["environment"]["AWS_ENDPOINT_URL"]


def test_status_of_a_running_sandbox(directory: Path) -> None:
    """Where it is and what it does, as a table and as JSON."""
    info = rig_of(directory).info
    shown = sesguard("status", "--directory", directory)
    document = json.loads(sesguard("status", "--json", "--directory", directory).stdout)

    assert shown.returncode == 0
    assert info.endpoint_url in shown.stdout.decode()
    assert document["running"] is True
    assert document["status"]["settings"]["region"] == "us-east-1"


def test_without_a_sandbox(tmp_path: Path) -> None:
    """``status`` is negative, ``inbox`` fails with a hint, ``down`` has nothing to do."""
    status = sesguard("status", "--json", "--directory", tmp_path)
    inbox = sesguard("inbox", "--directory", tmp_path)
    down = sesguard("down", "--directory", tmp_path)

    assert (status.returncode, inbox.returncode, down.returncode) == (1, 4, 0)
    assert json.loads(status.stdout) == {"version": 1, "running": False}
    assert inbox.stderr.decode() == (
        "sesguard: no sandbox is running\nhint: run: sesguard sandbox up\n"
    )


def test_the_inbox_shows_what_arrived(directory: Path) -> None:
    """Headers, source address, user and message id."""
    rig = rig_of(directory)
    key = rig.seed()
    content = mail(headers={"Subject": "Hello [red]\x1b[31m"})
    _, reply = rig.send(rig.login(key), content, source="127.0.0.9")
    message_id = reply.removeprefix("Ok ")

    table = sesguard("inbox", "--directory", directory).stdout.decode()
    document = json.loads(sesguard("inbox", "--json", "--directory", directory).stdout)
    raw = sesguard("inbox", "--raw", message_id, "--directory", directory).stdout

    for part in (message_id, "127.0.0.9", key.user_name, "app@example.com", "user@example.net"):
        assert part in table
    assert "Hello [red]\\x1b[31m" in table
    assert document["version"] == 1
    (message,) = document["messages"]
    assert message["id"] == message_id
    assert message["user_name"] == key.user_name
    assert ["From", "app@example.com"] in message["headers"]
    assert content == raw


def test_a_raw_message_that_is_not_there(directory: Path) -> None:
    """An unknown id is an error and writes nothing."""
    completed = sesguard("inbox", "--raw", "none", "--directory", directory)

    assert (completed.returncode, completed.stdout) == (4, b"")


def test_foreground_stays_until_it_is_interrupted(tmp_path: Path) -> None:
    """``up --foreground`` prints the environment, serves, and ends with 0 on Ctrl-C."""
    command = [sys.executable, "-m", "sesguard", "sandbox", "up", "--foreground"]
    with subprocess.Popen(
        [*command, "--region", "eu-west-1", "--directory", tmp_path], stdout=subprocess.PIPE
    ) as process:
        sandbox = eventually(lambda: find_sandbox(tmp_path))
        second = sesguard("up", "--foreground", "--directory", tmp_path)
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        printed = process.stdout.read().decode()

    assert sandbox is not None
    assert process.returncode == 0
    assert f"export AWS_ENDPOINT_URL={sandbox.info.endpoint_url}\n" in printed
    assert "export AWS_DEFAULT_REGION=eu-west-1\n" in printed
    assert (second.returncode, b"running already" in second.stderr) == (4, True)


def test_a_wrong_region_is_a_usage_error(tmp_path: Path) -> None:
    """A region that is none is refused before anything starts."""
    assert sesguard("up", "--region", "here", "--directory", tmp_path).returncode == 2
