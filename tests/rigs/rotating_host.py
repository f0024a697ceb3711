"""
A host without an MTA whose credential is rotated: settings, vault and the services, in a sandbox.

    host = make_rotating_host(tmp_path, sandbox_rig)
    host.rotation().rotate("ses", ignore)

Each host has an IAM user of its own, so that one sandbox serves many. Waiting is virtual
(`quick_pace`): a pause of a minute takes ten milliseconds. The calls of AWS have one attempt each,
so that a fault strikes our code and not botocore's own repetition, and so that nothing backs off.
"""

import contextlib
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from botocore.config import Config

from rigs.sandbox import Login, SandboxRig, transaction
from sesguard.aws.iam import AccessKey, IamKeys, KeyStatus
from sesguard.aws.session import AwsSession
from sesguard.config.load import load_settings
from sesguard.config.schema import Settings
from sesguard.core.credential import Credential, CredentialVersion, StagingLabel
from sesguard.core.endpoints import Endpoint
from sesguard.core.secret import Secret
from sesguard.deploy.service import TargetService
from sesguard.respond.incident import IncidentRecord, list_incidents
from sesguard.respond.playbook import PanicOptions, PanicService, Response
from sesguard.rotation.context import Pace
from sesguard.rotation.service import Rotated, RotationService
from sesguard.sandbox.model import ApiFault, ApiFaultKind
from sesguard.sandbox.process import ADMIN_ACCESS_KEY
from sesguard.sandbox.seed import SeededKey, admin_session
from sesguard.system.files import ensure_directory
from sesguard.upstream.smtp import LoginRefused, check_login
from sesguard.vault.opening import init_vault, make_provider, open_vault
from sesguard.vault.sealer import VaultSealer
from sesguard.vault.vault import Vault
from sesguard.workflow.engine import StepReport

NAME = "ses"
"""The credential."""
DOMAIN = "example.com"
_REAL_PAUSE_S = 0.01
_ONCE = Config(retries={"mode": "standard", "total_max_attempts": 1})
_numbers = itertools.count(1)


def ignore(_report: StepReport) -> None:
    """Nobody listens."""


class OneAttempt(AwsSession):
    """A session that repeats nothing by itself."""

    @property
    def iam(self) -> Any:
        """IAM."""
        return self.iam_once

    @property
    def sesv2(self) -> Any:
        """SES."""
        return _client(self, "sesv2")

    @property
    def cloudtrail(self) -> Any:
        """CloudTrail."""
        return _client(self, "cloudtrail")


@cache
def _client(session: OneAttempt, service: str) -> Any:
    make: Any = session._session.client
    return make(service, config=_ONCE, **session._place)


@cache
def one_attempt(rig: SandboxRig) -> OneAttempt:
    """The session of all hosts of a sandbox: clients take long to make."""
    secret = Secret(ADMIN_ACCESS_KEY)
    return OneAttempt(
        rig.info.region, endpoint_url=rig.info.endpoint_url, access_key=(ADMIN_ACCESS_KEY, secret)
    )


@cache
def patient(rig: SandboxRig) -> AwsSession:
    """A session as the commands have it, with botocore's repetition."""
    return admin_session(rig.sandbox)


def quick_pace(now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Pace:
    """A clock on which waiting passes the time, without taking it."""
    skipped = 0.0

    def sleep(seconds: float) -> None:
        nonlocal skipped
        really = min(seconds, _REAL_PAUSE_S)
        time.sleep(really)
        skipped += seconds - really

    return Pace(now=now, monotonic=lambda: time.monotonic() + skipped, sleep=sleep)


@dataclass(slots=True)
class RotatingHost:
    """One host; see the module docstring."""

    directory: Path
    rig: SandboxRig
    key: SeededKey
    pace: Pace = field(default_factory=quick_pace)
    session: AwsSession | None = None

    def write_settings(self, extra: str = "", **credential: object) -> None:
        """Write the settings file, with `extra` tables and more keys of the credential."""
        info = self.rig.info
        credential.setdefault("canary_sender", f"postmaster@{DOMAIN}")
        more = "".join(f"{name} = {json.dumps(value)}\n" for name, value in credential.items())
        self.settings_path.write_text(
            f"""\
state_directory = "{self.directory}/state"

[credentials.{NAME}]
regions = ["{info.region}"]
host = "{info.smtp_host}"
port = {info.starttls_port}
ca_file = "{info.ca_file}"
{more}
[vault]
directory = "{self.directory}/state/vault"

[vault.keyfile]
path = "{self.directory}/state/vault.key"

[daemon]
runtime_directory = "{self.directory}/run"

[target.exim]
layout = "monolithic"
binary = "/bin/true"
config_file = "{self.directory}/exim.conf"
{extra or RULES}"""
        )

    @property
    def settings_path(self) -> Path:
        """The settings file."""
        return self.directory / "sesguard.toml"

    @property
    def settings(self) -> Settings:
        """The settings, read from their file."""
        return load_settings(self.settings_path)

    @property
    def vault(self) -> Vault:
        """The vault."""
        return open_vault(self.settings)

    @property
    def user(self) -> str:
        """The IAM user of the first key."""
        return self.key.user_name

    @property
    def iam(self) -> IamKeys:
        """IAM, for the test itself."""
        return IamKeys(self._aws())

    def _aws(self) -> AwsSession:
        return self.session or one_attempt(self.rig)

    def rotation(self, pace: Pace | None = None) -> RotationService:
        """The service, as the commands make it."""
        settings, vault = self.settings, self.vault

        def credentials() -> Mapping[str, Credential]:
            return vault.read().credentials

        sealer = VaultSealer(make_provider(settings))
        targets = TargetService(settings, credentials, sealer)
        return RotationService(
            settings, vault, sealer, targets, lambda _name: self.iam, pace or self.pace
        )

    def panic_service(self, pace: Pace | None = None) -> PanicService:
        """The service of the response, as the command makes it."""
        settings, vault = self.settings, self.vault
        sealer = VaultSealer(make_provider(settings))
        rotation = self.rotation(pace)
        return PanicService(settings, vault, sealer, rotation, lambda _name: self._aws())

    def rotate(self) -> Rotated:
        """``sesguard rotate``."""
        return self.rotation().rotate(NAME, ignore)

    def resume(self) -> bool:
        """``sesguard rotate --resume``."""
        return self.rotation().resume(NAME, ignore)

    def retire(self) -> bool:
        """The first half of ``sesguard rotate --if-due``."""
        return self.rotation().retire(NAME, ignore)

    def panic(self, access_key_id: str | None = None, **options: bool) -> Response:
        """``sesguard panic``."""
        service = self.panic_service()
        leaked = service.leaked_key(NAME, access_key_id)
        return service.respond(NAME, leaked, ignore, PanicOptions(**options))

    def credential(self) -> Credential:
        """What is in the vault."""
        return self.vault.read().credentials[NAME]

    def current(self) -> CredentialVersion | None:
        """The version that is handed out."""
        return self.credential().labelled(StagingLabel.CURRENT)

    def change(self, change: Callable[[Credential], Credential]) -> None:
        """Change the credential in the vault behind the back of the services."""
        self.vault.update(NAME, change)

    def add_pending(self, username: str, password: Secret) -> None:
        """Put a PENDING version into the vault, as an attempt leaves it."""

        def change(credential: Credential) -> Credential:
            version = CredentialVersion(
                credential.next_number,
                username,
                {self.rig.info.region: password},
                datetime.now(UTC).isoformat(timespec="seconds"),
                "issued by rotate",
            )
            return credential.add_pending(version)

        self.change(change)

    def statuses(self, user: str | None = None) -> dict[str, KeyStatus]:
        """Status of each key of the user, by id."""
        listed: tuple[AccessKey, ...] = self.iam.list_access_keys(user or self.user)
        return {key.access_key_id: key.status for key in listed}

    def unknown_keys(self, user: str | None = None) -> set[str]:
        """Keys of the user that are in no vault."""
        credential = self.credential()
        return {key for key in self.statuses(user) if credential.of_key(key) is None}

    def login(self, version: CredentialVersion | None = None) -> Login:
        """User and password of a version, by default of CURRENT."""
        chosen = version or self.credential().current()
        return Login(chosen.username, chosen.passwords[self.rig.info.region])

    def logs_in(self, version: CredentialVersion | None = None) -> bool:
        """Whether SES takes a version, by default CURRENT."""
        login, info = self.login(version), self.rig.info
        endpoint = Endpoint(info.smtp_host, info.starttls_port)
        try:
            check_login(endpoint, login.user, login.password, ca_file=info.ca_file)
        except LoginRefused:
            return False
        return True

    def can_send(self, login: Login) -> bool:
        """Whether SES takes a mail of whoever has that login: the thief's question."""
        try:
            with self.rig.session(login) as connection:
                return transaction(connection, envelope_sender=f"thief@{DOMAIN}")[0] == 250
        except OSError:  # smtplib's errors are.
            return False

    def incidents(self) -> list[IncidentRecord]:
        """The records of all incidents, newest first."""
        return [each.record for each in list_incidents(self.directory / "state")]

    def set_fault(
        self, operation: str, kind: ApiFaultKind, *, count: int | None = 1, after: int = 0
    ) -> None:
        """Let one AWS call go wrong."""
        self.rig.client.set_api_faults(ApiFault(operation, kind, count=count, after=after))

    def clear_faults(self) -> None:
        """All is well again at AWS."""
        self.rig.client.clear_api_faults()


RULES = """
[rotation]
grace_hours = 0
test_timeout_s = 20
drain_timeout_s = 1

[panic]
drain_timeout_s = 1
proof_timeout_s = 5
"""


def make_rotating_host(directory: Path, rig: SandboxRig, **options: Any) -> RotatingHost:
    """
    Make a host whose vault holds the one key of a fresh IAM user as CURRENT.

    Args:
        directory: Made.
        rig: The sandbox.
        options: Fields of `RotatingHost`, or else arguments of its `write_settings`.
    """
    fields = {name: options.pop(name) for name in ("pace", "session") if name in options}
    key = rig.seed(user_name=f"smtp-{next(_numbers)}", domain=DOMAIN)
    host = RotatingHost(directory, rig, key, **fields)
    for path in (directory, directory / "state", directory / "run"):
        ensure_directory(path, mode=0o755)
    # An Exim that does not send through SES, whatever is installed on this machine.
    (directory / "exim.conf").write_text("begin routers\n")
    host.write_settings(**options)
    init_vault(host.settings)
    host.add_pending(key.access_key_id, rig.login(key).password)
    host.change(Credential.promote)
    return host


def calls_of(session: AwsSession, act: Callable[[], object]) -> list[str]:
    """Every AWS call that `act` makes by `session`, in order, such as ``iam:GetUser``."""
    calls: list[str] = []

    def record(model: Any, **_rest: object) -> None:
        calls.append(f"{model.service_model.signing_name}:{model.name}")

    clients = (session.iam, session.sesv2, session.cloudtrail)
    for client in clients:
        client.meta.events.register("before-call", record)
    try:
        act()
    finally:
        for client in clients:
            client.meta.events.unregister("before-call", record)
    return calls


@contextlib.contextmanager
def daemon_that_serves(host: RotatingHost, number: int | None) -> Iterator[None]:
    """A control socket that says which version is handed out, whatever the vault says."""
    answer = json.dumps({"credentials": [{"id": NAME, "current_version": number}]}).encode()
    path = host.directory / "run" / "control.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=_answer_all, args=(listener, answer), daemon=True)
        thread.start()
        try:
            yield
        finally:
            path.unlink()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _answer_all(listener: socket.socket, answer: bytes) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = listener.accept()
            with client:
                client.recv(100)
                client.sendall(answer + b"\n")
