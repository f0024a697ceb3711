"""
Plans the change of an Exim from a plaintext credential to lookup, or to our relay.

The order is what keeps mail safe:

    CheckLookup       the daemon answers Exim's user with the CURRENT version (lookup mode)
    CheckRelay        the relay answers (relay mode)
    CheckCandidate    Exim accepts the new configuration (not cPanel, whose build checks itself)
    ReloadExim        acts in undo only, after the files are back
    ReplaceFile edit  the configuration, by rename
    Rebuild           Debian and cPanel
    CheckInstalled    Exim accepts what is installed
    ReloadExim        and its daemon survives it
    SendCanary        a real mail is accepted by SES
    ReplaceFile wipe  only now: passwd.client, backups, other copies
    CheckNoPlaintext  nothing is left

A failure anywhere puts every file back. The plaintext that is taken out is in the sealed
checkpoints of the journal, for undo, and nowhere else.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sesguard.config.schema import CredentialSettings, Settings
from sesguard.core.credential import Credential
from sesguard.core.message import Message, message
from sesguard.core.secret import Secret
from sesguard.deploy.exim.layout import EximLayout, Group, read_layout
from sesguard.deploy.exim.program import EximProgram, find_exim
from sesguard.deploy.exim.rewire import Rewired, Wiring, rewire
from sesguard.deploy.exim.steps import (
    CheckCandidate,
    CheckInstalled,
    CheckLookup,
    CheckRelay,
    EximContext,
    ReloadExim,
    SendCanary,
)
from sesguard.deploy.exim.submission import relay_endpoint, require_app
from sesguard.deploy.exim.wiping import (
    decode,
    encode,
    masked_diff,
    require_known,
    require_unused,
)
from sesguard.deploy.interface import Check, CredentialReader, Plan, Target, TargetState
from sesguard.deploy.known import KnownSecrets
from sesguard.deploy.steps import CheckNoPlaintext, Rebuild, ReplaceFile
from sesguard.errors import DeployError, Error, SettingsError
from sesguard.system.files import FileState, read_file
from sesguard.system.search import search_files, walk_files
from sesguard.workflow.step import Step

_BACKUP: Final = re.compile(
    r"~$|\.sw[a-z]$|[._-](bak|backup|old|orig|save|sav|copy|dist|dpkg-|rpm|ucf-|\d)", re.IGNORECASE
)
"""Names that editors, package managers and administrators give to copies."""


class EximDeployer:
    """
    Lookup mode and relay mode for the Exim of this host.

    Args:
        settings: The settings file.
        credentials: Reads the vault, each time it is called.
    """

    name = "exim"
    step_types: Sequence[type[Step[Any]]] = (
        CheckLookup,
        CheckRelay,
        CheckCandidate,
        CheckInstalled,
        ReloadExim,
        SendCanary,
        ReplaceFile,
        Rebuild,
        CheckNoPlaintext,
    )

    def __init__(self, settings: Settings, credentials: CredentialReader) -> None:
        self._settings = settings
        self._target = settings.target.exim
        self._credentials = credentials

    def find(self) -> Target:
        """See `Deployer.find`."""
        program = find_exim(self._target.binary, self._target.config_file)
        if program is None:
            return Target(self.name, TargetState.ABSENT)
        layout = read_layout(program, self._target)
        rewired = [self._rewired(layout, group)[1] for group in layout.groups if group.in_use]
        if any(item.credential_found for item in rewired):
            state = TargetState.PLAINTEXT
        elif any(item.in_place for item in rewired):
            state = TargetState.PLAINTEXT if self._wipes(layout, set()) else TargetState.APPLIED
        else:
            state = TargetState.UNRELATED
        return Target(self.name, state, layout.name, str(layout.config))

    def plan(self) -> Plan:
        """See `Deployer.plan`."""
        program = self._program()
        layout = read_layout(program, self._target)
        self._require_extra_files()
        edits: list[ReplaceFile] = []
        originals: dict[str, bytes] = {}
        for group in layout.groups:
            for step, state in self._edits(layout, group):
                edits.append(step)
                originals[step.path] = state.content
        wipes = self._wipes(layout, set(originals))
        for step, state in wipes:
            originals[step.path] = state.content
        if not edits and not wipes:
            return Plan(())
        steps = [*self._change(layout, edits)] if edits else []
        steps += [step for step, _ in wipes]
        steps.append(CheckNoPlaintext(places=tuple(map(str, layout.places))))
        replaced = [step for step in steps if isinstance(step, ReplaceFile)]
        return Plan(tuple(steps), masked_diff(replaced, originals, self._known()))

    def context(self) -> EximContext:
        """See `Deployer.context`."""
        return EximContext(
            self._program(),
            self._expected_answer,
            self._needles,
            lambda: self._known().retired(),
            self._settings.state_directory / "candidate",
            self._target.pid_file,
        )

    def verify(self) -> list[Check]:
        """See `Deployer.verify`."""
        layout = read_layout(self._program(), self._target)
        rewired = self._in_use(layout)
        context = self.context()
        checks = [
            _check(step.act, context, step.title())
            for step in (self._check_service(rewired), self._check_installed(layout, rewired))
        ]
        if self._relayed:
            checks.append(
                Check(
                    not self._settings.lookup.exim.enabled,
                    message("Exim's user cannot ask for the credential ([lookup.exim] enabled)"),
                )
            )
        for group in layout.groups:
            pending = self._edits(layout, group)
            path = group.files[0]
            checks.append(Check(not pending, message("{path} is as it is to be", path=path)))
        matches = search_files(layout.places, self._needles())
        checks.append(
            Check(not matches, message("copies of the credential: {count}", count=len(matches)))
        )
        return checks

    def release(self) -> None:
        """See `Deployer.release`."""
        self._program().run_queue()

    def _change(self, layout: EximLayout, edits: list[ReplaceFile]) -> Sequence[Step[Any]]:
        """The steps from the question to the daemon to the test mail."""
        name = self._credential_name()
        rewired = self._in_use(layout)
        steps: list[Step[Any]] = [self._check_service(rewired)]
        candidate = self._candidate(layout, edits, rewired.transports)
        if candidate is not None:
            steps.append(candidate)
        steps += [ReloadExim(when="undo"), *edits]
        if layout.rebuild:
            steps.append(Rebuild(command=layout.rebuild, generated=str(layout.config)))
        steps += [self._check_installed(layout, rewired), ReloadExim(when="apply")]
        if self._target.canary:
            credential = self._credential_settings()
            if credential.canary_sender is None:
                raise SettingsError(
                    "credentials.{name}.canary_sender is not set, so no test mail can be sent",
                    hint="set it to an address that SES has verified (or canary = false)",
                    name=name,
                )
            steps.append(
                SendCanary(sender=credential.canary_sender, recipient=credential.canary_recipient)
            )
        return steps

    @property
    def _relayed(self) -> bool:
        return self._target.mode == "relay"

    def _check_service(self, rewired: Rewired) -> CheckLookup | CheckRelay:
        return self._check_relay() if self._relayed else self._check_lookup(rewired)

    def _check_relay(self) -> CheckRelay:
        endpoint = relay_endpoint(self._settings)
        app = require_app(self._settings, self._program().user())
        return CheckRelay(address=endpoint.address, port=endpoint.port, app=app)

    def _check_lookup(self, rewired: Rewired) -> CheckLookup:
        credential = self._credential_settings()
        domain = next(iter(credential.sender_domains), "")
        return CheckLookup(
            socket=str(self._wiring().socket),
            credential_id=self._credential_name(),
            hosts=rewired.hosts,
            sender=credential.canary_sender or (f"postmaster@{domain}" if domain else ""),
        )

    def _check_installed(self, layout: EximLayout, rewired: Rewired) -> CheckInstalled:
        return CheckInstalled(
            config=str(layout.config),
            transports=rewired.transports,
            relay=self._wiring().relay,
        )

    def _in_use(self, layout: EximLayout) -> Rewired:
        group = next(group for group in layout.groups if group.in_use)
        return self._rewired(layout, group)[1]

    def _require_extra_files(self) -> None:
        """A name in the settings that leads nowhere would make "no copy is left" a lie."""
        for path in self._target.extra_files:
            if not path.exists():
                raise SettingsError(
                    "target.exim.extra_files names {path}, which is not there",
                    hint="correct the name or take it out",
                    path=path,
                )

    def _candidate(
        self, layout: EximLayout, edits: list[ReplaceFile], transports: tuple[str, ...]
    ) -> CheckCandidate | None:
        changed = {edit.path: edit.new_content for edit in edits}
        group = next(group for group in layout.groups if group.in_use)
        files = {
            str(path): changed.get(str(path)) or read_file(path).content for path in group.files
        }
        if layout.name == "monolithic":
            return CheckCandidate(
                files=files,
                main=str(layout.config),
                transports=transports,
                relay=self._wiring().relay,
            )
        if layout.name == "debian":
            directory = self._target.debian_directory
            options = directory / "update-exim4.conf.conf"
            files[str(options)] = read_file(options).content
            return CheckCandidate(
                files=files,
                main="",
                transports=transports,
                rebuild=layout.rebuild,
                directory=str(directory),
                relay=self._wiring().relay,
            )
        return None

    def _edits(self, layout: EximLayout, group: Group) -> list[tuple[ReplaceFile, FileState]]:
        """The changes of one configuration, secrets in comments and macros taken out as well."""
        states, rewired = self._rewired(layout, group)
        if group.in_use and not rewired.in_place:
            raise DeployError(
                "{path} holds no SES credential that could be replaced",
                hint="Exim does not send through SES here, or gets its credential in another way",
                path=layout.config,
            )
        if rewired.in_place and not rewired.transports:
            raise DeployError(
                "no transport of {path} delivers to {hosts}",
                hint="name the upstream as host in the credential's settings",
                path=group.files[0],
                hosts=", ".join(sorted(self._wiring().hosts)) or "SES",
            )
        known = self._known()
        found: list[tuple[ReplaceFile, FileState]] = []
        if not all(map(known.knows, rewired.carried)):
            raise DeployError(
                "{path} holds a credential that is not in the vault",
                hint="run: sesguard credential import --from {path}",
                path=group.files[0],
            )
        for path, state in states.items():
            require_unused(path, rewired.texts[path], known)
            new = known.redacted(encode(rewired.texts[path]))
            if new != state.content:
                found.append((ReplaceFile.of(path, state, new, "edit"), state))
        return found

    def _rewired(self, layout: EximLayout, group: Group) -> tuple[dict[Path, FileState], Rewired]:
        states = {path: read_file(path) for path in group.files}
        rewired = rewire(
            {path: decode(state.content) for path, state in states.items()},
            self._wiring(),
            definitions=layout.definitions,
            carries_credential=_looks_up(layout.credential_files),
        )
        return states, rewired

    def _wipes(self, layout: EximLayout, edited: set[str]) -> list[tuple[ReplaceFile, FileState]]:
        """Every other file with a copy. What a rebuild makes is not among them."""
        skip = edited | ({str(layout.config)} if layout.rebuild else set())
        known = self._known()
        found: list[tuple[ReplaceFile, FileState]] = []
        for path in sorted(set(walk_files(layout.places))):
            if str(path) in skip:
                continue
            state = read_file(path)
            content = state.content
            if path in layout.credential_files:
                require_known(path, known.redacted(content))
                content = known.without_lines(content)
            new = known.redacted(content)
            if new != state.content:
                self._require_not_live(path, state)
                found.append((ReplaceFile.of(path, state, new, "wipe"), state))
        return found

    def _require_not_live(self, path: Path, state: FileState) -> None:
        """Refuse to wipe what may be the configuration of a second Exim: its mail would bounce."""
        if _BACKUP.search(path.name) or path in self._target.extra_files:
            return
        if rewire({path: decode(state.content)}, self._wiring()).credential_found:
            raise DeployError(
                "{path} is another Exim configuration with the credential in it",
                hint="if it is a backup, move it away or name it in target.exim.extra_files",
                path=path,
            )

    def _known(self) -> KnownSecrets:
        return KnownSecrets(self._credentials())

    def _needles(self) -> Mapping[str, bytes]:
        return self._known().needles()

    def _expected_answer(self, credential_id: str, host: str) -> Secret:
        version = self._credential(credential_id).current()
        password = version.password_for(host).reveal()
        return Secret("^" + version.username + "^" + password.replace("^", "^^"))

    def _credential(self, name: str) -> Credential:
        credential = self._credentials().get(name)
        if credential is None:
            raise DeployError(
                "the vault holds no credential {name}",
                hint="run: sesguard credential import {name} --from FILE",
                name=name,
            )
        return credential

    def _credential_name(self) -> str:
        names = list(self._settings.credentials)
        if self._target.credential is not None:
            names = [name for name in names if name == self._target.credential]
        if len(names) != 1:
            raise SettingsError(
                "target.exim.credential does not say which credential Exim is to use",
                hint="set it to one of the names under [credentials.NAME]",
            )
        return names[0]

    def _credential_settings(self) -> CredentialSettings:
        return self._settings.credentials[self._credential_name()]

    def _wiring(self) -> Wiring:
        directory = self._settings.daemon.runtime_directory
        return Wiring(
            directory,
            directory / "exim.sock",
            self._ca_file(),
            frozenset(
                item.host.lower().rstrip(".")
                for item in self._settings.credentials.values()
                if item.host
            ),
            relay_endpoint(self._settings).hosts if self._relayed else "",
        )

    def _ca_file(self) -> Path | None:
        """The CA of the credential that Exim uses; None also while that is not settled yet."""
        names = [self._target.credential] if self._target.credential else self._settings.credentials
        found = [
            self._settings.credentials[name] for name in names if name in self._settings.credentials
        ]
        return found[0].ca_file if len(found) == 1 else None

    def _program(self) -> EximProgram:
        program = find_exim(self._target.binary, self._target.config_file)
        if program is None:
            raise DeployError(
                "there is no Exim on this host",
                hint="install it, or name it as binary in [target.exim]",
            )
        return program


def _check(act: Callable[[EximContext], None], context: EximContext, title: Message) -> Check:
    try:
        act(context)
    except Error as error:
        return Check(False, Message("{problem}", {"problem": error}))
    return Check(True, title)


def _looks_up(files: Sequence[Path]) -> Callable[[str], bool]:
    """Whether a client_send looks the credential up in one of `files`."""
    names = [path.name for path in files]
    return lambda value: any(name in value for name in names)
