"""G1 over a whole run of real commands: no form of the secret anywhere, and a leak is seen."""

import base64
import os
import subprocess
import sys
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pytest

from rigs.exim import needs_exim
from rigs.host import SENDER, MailHost
from rigs.tripwire import Tripwire

pytestmark = [pytest.mark.real, needs_exim]

NewHost = Callable[..., MailHost]


def sesguard(host: MailHost, *arguments: str, stdin: str = "") -> int:
    """Run a command as a user does; all that it prints is kept in the host's directory."""
    outputs = host.directory / "outputs"
    outputs.mkdir(exist_ok=True)
    completed = subprocess.run(
        [
            sys.executable,
            "-m",
            "sesguard",
            "--debug",
            "--config",
            str(host.settings_path),
            *arguments,
        ],
        input=stdin.encode(),
        capture_output=True,
        check=False,
    )
    name = f"{len(list(outputs.iterdir())):02}-{'-'.join(a for a in arguments if a[0] not in '-/')}"
    (outputs / name).write_bytes(completed.stdout + completed.stderr)
    return completed.returncode


def whole_run(host: MailHost) -> dict[str, int]:
    """Every command of the product, right ones and failing ones, on one host."""
    codes = {}
    config = str(host.exim.config)
    codes["import"] = sesguard(host, "credential", "import", "--from", config)
    codes["import nonsense"] = sesguard(host, "credential", "import", "--stdin", stdin="nonsense\n")
    codes["plan without daemon"] = sesguard(host, "target", "plan", "exim")
    codes["apply without daemon"] = sesguard(host, "target", "apply", "exim", "--yes")
    with host.daemon():
        codes["plan"] = sesguard(host, "target", "plan", "exim", "--json")
        codes["apply"] = sesguard(host, "target", "apply", "exim", "--yes")
        codes["verify"] = sesguard(host, "target", "verify", "exim", "--json")
        host.exim.inject(SENDER, "b@example.net")
        codes["send"] = sesguard(host, "send", "--to", "c@example.net", "--via", "direct")
        codes["status"] = sesguard(host, "status", "--json")
        codes["list"] = sesguard(host, "credential", "list", "--json")
        codes["check"] = sesguard(host, "credential", "check", "--json")
        codes["targets"] = sesguard(host, "target", "list", "--json")
    codes["send without upstream"] = sesguard(
        host, "send", "--to", "not an address", "--via", "direct"
    )
    return codes


def test_no_secret_is_left_anywhere_by_a_whole_run(new_host: NewHost) -> None:
    """Files, logs, outputs, journal, vault, environments, command lines: not one hit."""
    host = new_host(extra_files=("shop.env",))
    secrets = [
        (host.password, host.key.access_key_id),
        (host.key.secret_key, host.key.access_key_id),
    ]
    with Tripwire([host.directory], secrets) as tripwire:
        codes = whole_run(host)

    assert {
        "import": 0,
        "import nonsense": 4,
        "plan without daemon": 0,
        "apply without daemon": 3,
        "plan": 0,
        "apply": 0,
        "verify": 0,
        "send": 0,
        "status": 0,
        "list": 0,
        "check": 0,
        "targets": 0,
        "send without upstream": 2,
    } == codes
    assert ["b@example.net", "c@example.net"] == host.delivered()
    assert tripwire.hits() == []


@pytest.mark.parametrize(
    "encode",
    [
        lambda user, password: password,
        lambda user, password: urllib.parse.quote(password, safe=""),
        lambda user, password: password.encode().hex(),
        lambda user, password: base64.b64encode(f"x{password}y".encode()).decode(),
        lambda user, password: base64.b64encode(f"\0{user}\0{password}".encode()).decode(),
    ],
    ids=["raw", "url", "hex", "base64", "auth-plain"],
)
def test_planted_leak_is_seen_in_a_file(
    new_host: NewHost, encode: Callable[[str, str], str]
) -> None:
    """A secret in a log, in any form, is a hit: the test above can fail."""
    host = new_host(canary=False)
    with host.daemon():
        host.apply()
    with Tripwire([host.directory], [(host.password, host.key.access_key_id)]) as tripwire:
        assert tripwire.hits() == []
        text = encode(host.key.access_key_id, host.password.reveal())
        with host.exim.log.open("a") as log:
            log.write(f"debug: sent {text} to the server\n")

    assert all(str(host.exim.log) in hit for hit in tripwire.hits())
    assert tripwire.hits()


@pytest.mark.parametrize("place", ["argument", "environment"])
def test_planted_leak_is_seen_in_a_process(tmp_path: Path, new_host: NewHost, place: str) -> None:
    """A secret on a command line or in an environment is a hit, however short the process lives."""
    host = new_host()
    secret = host.password.reveal()
    arguments = ["sleep", "0.3", *([secret] if place == "argument" else [])]
    with Tripwire([tmp_path / "none"], [(host.password, host.key.access_key_id)]) as tripwire:
        subprocess.run(
            ["sh", "-c", "sleep 0.3", *arguments[2:]],
            env={**os.environ, **({"SECRET": secret} if place == "environment" else {})},
            check=True,
        )

    assert tripwire.hits()
