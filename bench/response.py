"""
How fast a leak is cut off, and how long a rotation takes.

Usage: python bench/response.py [--rounds N] [--json]

A host with sesguardd and, where it can be had, a real Exim in lookup mode; the embedded SES, whose
IAM changes take effect at once: what AWS itself needs for that comes on top. In each round the key
is rotated, then taken for leaked. The functions are called as the commands call them, without the
start of a Python interpreter.

    rotation   `sesguard rotate`, as a whole
    contained  from the start of the response until SES refuses the leaked key for the first time,
               as the sandbox's log of connections has it
    runbook    `sesguard panic`, as a whole: contained, proved, recovered, evidence kept

Each figure is the median of the rounds. Targets: contained in under 2 s, the runbook in under 15 s.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sesguard.cli.context import App
from sesguard.cli.demo_host import DemoHost, EximHost
from sesguard.cli.demo_plain_host import PlainHost
from sesguard.cli.demo_stage import Stage
from sesguard.cli.demo_thief import read_containment
from sesguard.cli.output import Output
from sesguard.core.credential import CredentialVersion
from sesguard.core.smtp_password import derive_smtp_password
from sesguard.respond.playbook import PanicOptions
from sesguard.sandbox.private_exim import Upstream, exim_available
from sesguard.sandbox.process import Sandbox, running_sandbox
from sesguard.sandbox.seed import seed_account
from sesguard.system.privileges import current_user, is_root
from sesguard.vault.opening import init_vault
from sesguard.workflow.engine import StepReport

DOMAIN = "example.com"
TARGETS_S = {"contained": 2.0, "runbook": 15.0}


@dataclass(frozen=True, slots=True)
class Round:
    """The seconds of one round."""

    rotation: float
    contained: float
    runbook: float


def ignore(_report: StepReport) -> None:
    """Nobody listens."""


@contextmanager
def running_host(directory: Path) -> Iterator[tuple[App, Sandbox]]:
    """A host with a credential in its vault, sesguardd, and Exim where there is one."""
    directory.chmod(0o711)
    with ExitStack() as stack:
        sandbox = stack.enter_context(running_sandbox(directory / "sandbox"))
        os.environ.update(sandbox.environment())
        key = seed_account(sandbox, domain=DOMAIN)
        # Exim's user reads it, and the sandbox's own directory is private.
        ca_file = directory / "ca.pem"
        ca_file.write_bytes(sandbox.info.ca_file.read_bytes())
        info = sandbox.info
        password = derive_smtp_password(key.secret_key, info.region)
        upstream = Upstream(
            info.smtp_host, info.starttls_port, ca_file, key.access_key_id, password
        )
        stage = Stage(directory, Output(), quiet=True)
        host: DemoHost = (
            EximHost(directory / "host", upstream, stack)
            if exim_available()
            else PlainHost(directory / "host", upstream, stage.settings)
        )
        write_settings(stage.settings, directory, upstream, info.region, host)
        app = App()
        app.configure(config=stage.settings, debug=False, color=False)
        version = CredentialVersion(
            1, key.access_key_id, {info.region: password}, "2026-01-01T00:00:00Z", "benchmark"
        )
        init_vault(app.settings).update("ses", lambda known: known.add_pending(version).promote())
        stage.start_daemon(stack)
        if exim_available():
            app.targets().apply("exim", ignore)
        yield app, sandbox


def write_settings(
    path: Path, directory: Path, upstream: Upstream, region: str, host: DemoHost
) -> None:
    """Write the settings file; what must exist for it is made."""
    for name in ("state", "run"):
        (directory / name).mkdir()
    path.write_text(
        f'state_directory = "{directory}/state"\n'
        f'[credentials.ses]\nregions = ["{region}"]\n'
        f'host = "{upstream.host}"\nport = {upstream.port}\nca_file = "{upstream.ca_file}"\n'
        f'canary_sender = "postmaster@{DOMAIN}"\n'
        f'[vault]\ndirectory = "{directory}/state/vault"\n'
        f'[vault.keyfile]\npath = "{directory}/state/vault.key"\n'
        f'[daemon]\nuser = "{"nobody" if is_root() else current_user().name}"\n'
        f'runtime_directory = "{directory}/run"\n{host.settings()}'
    )


def measure(app: App, sandbox: Sandbox) -> Round:
    """Rotate, then respond to the leak of the new key."""
    start = time.monotonic()
    leaked = app.rotation().rotate("ses", ignore).username
    rotation = time.monotonic() - start
    started_at, start = datetime.now(UTC), time.monotonic()
    response = app.panic().respond("ses", leaked, ignore, PanicOptions())
    runbook = time.monotonic() - start
    assert response.recovered, response.problems
    refused_at = read_containment(sandbox.client, leaked).refused_at
    return Round(rotation, (refused_at - started_at).total_seconds(), runbook)


def medians(rounds: list[Round]) -> dict[str, float]:
    """Each figure's median, by name."""
    return {
        name: statistics.median(getattr(each, name) for each in rounds)
        for name in ("rotation", "contained", "runbook")
    }


def show(rounds: list[Round]) -> None:
    """Print a table."""
    print(f"{'':10} {'median':>9} {'slowest':>9} {'target':>9}")
    for name, median in medians(rounds).items():
        slowest = max(getattr(each, name) for each in rounds)
        target = f"< {TARGETS_S[name]:g} s" if name in TARGETS_S else ""
        print(f"{name:10} {median:7.3f} s {slowest:7.3f} s {target:>9}")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="sesguard-bench-") as name,
        running_host(Path(name)) as (app, sandbox),
    ):
        rounds = [measure(app, sandbox) for _ in range(options.rounds)]
    if options.json:
        print(json.dumps(medians(rounds)))
    else:
        mta = "a real Exim" if exim_available() else "no MTA"
        print(f"{os.cpu_count()} cores, {options.rounds} rounds, {mta}, IAM delay 0")
        show(rounds)


if __name__ == "__main__":
    main()
