"""Runs the command line, in this process or as a program, on a settings file of its own."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from rigs.command_line import Cli, Result
from rigs.smtp_peer import Server, server_context, smtp_server
from sesguard.cli.main import main

_LANGUAGE = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG", "NO_COLOR", "FORCE_COLOR")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the settings file of the test is; it does not exist yet."""
    path = tmp_path / "etc" / "sesguard.toml"
    monkeypatch.setenv("SESGUARD_CONFIG", str(path))
    for name in _LANGUAGE:
        monkeypatch.delenv(name, raising=False)
    return path


@pytest.fixture
def cli(config: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run one command line in this process."""

    def run(
        *arguments: str | Path, stdin: str = "", environment: dict[str, str] | None = None
    ) -> Result:
        for name, value in (environment or {}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def program(config: Path) -> Cli:
    """Run one command line as a program, as a user does."""

    def run(
        *arguments: str | Path, stdin: str = "", environment: dict[str, str] | None = None
    ) -> Result:
        completed = subprocess.run(
            [sys.executable, "-m", "sesguard", *map(str, arguments)],
            input=stdin,
            capture_output=True,
            text=True,
            encoding="utf-8",
            env={**os.environ, "LC_ALL": "C.UTF-8", **(environment or {})},
            timeout=60,
        )
        return Result(completed.returncode, completed.stdout, completed.stderr)

    return run


@pytest.fixture
def host(cli: Cli, tmp_path: Path) -> Path:
    """A host with settings and an empty vault, all below one directory."""
    base = tmp_path / "base"
    done = cli("init", "--region", "us-east-1", "--base-directory", base)
    assert done.code == 0, done.err
    return base


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """The CA of the SMTP server."""
    return trustme.CA()


@pytest.fixture
def ses(authority: trustme.CA) -> Iterator[Server]:
    """A server that stands for SES."""
    with smtp_server(server_context(authority, "127.0.0.1")) as running:
        yield running
