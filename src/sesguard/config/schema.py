"""
What may stand in the settings file, with defaults and limits.

One frozen class a table; the docstring under a field is its documentation, and
docs/reference/settings.md is checked against it. `sesguard.config.load` refuses unknown keys.
"""

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from sesguard.core.endpoints import smtp_host

Port = Annotated[int, Meta(ge=1, le=65535)]
CredentialName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
AppName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,30}(:\*)?$")]
Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]


class CredentialSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[credentials.NAME]``: one SES SMTP credential."""

    regions: Annotated[tuple[str, ...], Meta(min_length=1)]
    """AWS regions to derive an SMTP password for; the first is the default."""
    host: str | None = None
    """SMTP host; set it for a VPC endpoint or a sandbox. Default: the region's public endpoint."""
    port: Port = 587
    """465 and 2465 start with TLS, the others use STARTTLS."""
    ca_file: Path | None = None
    """CA certificates that the host's certificate must chain to. Default: the system's."""
    sender_domains: tuple[str, ...] = ()
    """Domains of the envelope senders that use this credential; empty: every sender."""
    canary_sender: str | None = None
    """Verified address that the test mail of ``target apply`` and ``send`` comes from."""
    canary_recipient: str = "success@simulator.amazonses.com"
    """Where the test mail goes. Default: the SES mailbox simulator."""
    iam_user: str | None = None
    """IAM user of the access key. Default: AWS is asked whose the key is."""
    configuration_set: str | None = None
    """SES configuration set that its mail goes through; ``panic`` pauses it."""
    fallback_hosts: tuple[str, ...] = ()
    """``HOST`` or ``HOST:PORT`` that the relay tries in turn while the host cannot be reached."""

    @property
    def smtp_host(self) -> str:
        """The host to connect to."""
        return self.host or smtp_host(self.regions[0])


class KeyfileSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[vault.keyfile]``."""

    path: Path = Path("/etc/sesguard/vault.key")
    """File with the vault key: 0600, owned by root."""


class PassphraseSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[vault.passphrase]``."""

    path: Path = Path("/etc/sesguard/vault-key.passphrase")
    """File with the vault key, encrypted under the passphrase."""
    passphrase_file: Path | None = None
    """File with the passphrase: 0600, owned by root, not on the same disk or in its backups."""
    credential: str = "sesguard-passphrase"
    """systemd credential with the passphrase. Without it and a file, a terminal is asked."""


class SystemdSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[vault.systemd]``."""

    path: Path = Path("/etc/credstore.encrypted/sesguard-vault-key")
    """File with the vault key, encrypted by ``systemd-creds``."""
    with_key: Literal["auto", "host", "tpm2", "host+tpm2"] = "auto"
    """What it is encrypted with, as ``systemd-creds --with-key`` has it."""
    tpm2_device: str | None = None
    """TPM device, as ``systemd-creds --tpm2-device`` has it."""
    tpm2_pcrs: Annotated[tuple[Annotated[int, Meta(ge=0, le=23)], ...], Meta(min_length=1)] = (7,)
    """PCRs of the TPM that must be as they are now; 7 is the state of Secure Boot."""


class KmsSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[vault.kms]``."""

    path: Path = Path("/etc/sesguard/vault-key.kms")
    """File with the vault key, encrypted by KMS."""
    key_id: str | None = None
    """ARN, id or alias of a symmetric KMS key. Needed where the provider is ``kms``."""
    region: str | None = None
    """Region of the KMS key. Default: that of its ARN, else of the table ``aws``."""


class SecretsManagerSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[vault.secretsmanager]``."""

    secret_id: str = "sesguard/vault-key"  # noqa: S105 - a name
    """Name or ARN of the secret that holds the vault key."""
    region: str | None = None
    """Region of the secret. Default: that of its ARN, else of the table ``aws``."""


class Pkcs11Settings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[vault.pkcs11]``."""

    path: Path = Path("/etc/sesguard/vault-key.pkcs11")
    """File with the vault key, wrapped by a key that never leaves the token."""
    module: Path | None = None
    """PKCS#11 library of the token. Needed where the provider is ``pkcs11``."""
    token_label: str | None = None
    """Label of the token. Needed where the provider is ``pkcs11``."""
    key_label: str = "sesguard"
    """Label of the wrapping key in the token: AES, or a pair of RSA keys."""
    pin_file: Path | None = None
    """File with the user PIN: 0600, owned by root."""
    pin_credential: str = "sesguard-pin"
    """systemd credential with the user PIN. Without it and a file, a terminal is asked."""


class VaultSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[vault]``."""

    directory: Path = Path("/var/lib/sesguard/vault")
    """Directory of the sealed records."""
    key_provider: Literal["keyfile", "passphrase", "systemd", "kms", "secretsmanager", "pkcs11"] = (
        "keyfile"
    )
    """Where the vault key lies, and what opens it."""
    keyfile: KeyfileSettings = field(default_factory=KeyfileSettings)
    passphrase: PassphraseSettings = field(default_factory=PassphraseSettings)
    systemd: SystemdSettings = field(default_factory=SystemdSettings)
    kms: KmsSettings = field(default_factory=KmsSettings)
    secretsmanager: SecretsManagerSettings = field(default_factory=SecretsManagerSettings)
    pkcs11: Pkcs11Settings = field(default_factory=Pkcs11Settings)


class DaemonSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[daemon]``."""

    user: str = "sesguard"
    """User that ``sesguardd`` runs as once its sockets are open."""
    runtime_directory: Path = Path("/run/sesguard")
    """Directory of the sockets."""


class LookupSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[lookup.exim]`` and ``[lookup.postfix]``: who may ask for the credential."""

    enabled: bool = True
    """Whether the socket is opened. It is opened only where one of the users exists."""
    users: tuple[str, ...] = ()
    """Users (names or numbers) that may ask, by SO_PEERCRED; their group owns the socket."""
    max_connections: Annotated[int, Meta(ge=1, le=10_000)] = 256
    """Connections at one time; a further one is closed at once."""
    timeout_s: Annotated[float, Meta(gt=0, le=60)] = 5.0
    """Time for a client to send its request."""
    require_tls: bool = True
    """Whether a request that says that the session has no TLS is refused."""


class LookupsSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[lookup]``."""

    exim: LookupSettings = field(
        default_factory=lambda: LookupSettings(users=("Debian-exim", "exim", "mailnull"))
    )
    postfix: LookupSettings = field(default_factory=lambda: LookupSettings(users=("postfix",)))


class EximTargetSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[target.exim]``: where Exim is, when it is not where every host has it."""

    mode: Literal["lookup", "relay"] = "lookup"
    """``lookup``: Exim asks for the credential; ``relay``: it hands its mail to our relay."""
    layout: Literal["auto", "monolithic", "debian", "cpanel"] = "auto"
    """How the configuration is kept; ``auto`` looks."""
    binary: Path | None = None
    """The Exim program. Default: ``exim4`` or ``exim``."""
    config_file: Path | None = None
    """The configuration that Exim reads (given to it by ``-C``). Default: what Exim itself says."""
    debian_directory: Path = Path("/etc/exim4")
    """Debian: where ``update-exim4.conf.conf`` and ``passwd.client`` are."""
    cpanel_local_file: Path = Path("/etc/exim.conf.local")
    """cPanel: the file that its administrator's changes are in."""
    rebuild_command: tuple[str, ...] = ()
    """Program and arguments that make the configuration anew. Default: the layout's own."""
    pid_file: Path | None = None
    """Exim's pid file. Default: what Exim itself says."""
    credential: CredentialName | None = None
    """The credential to use. Default: the only one there is."""
    canary: bool = True
    """Whether ``target apply`` sends a test mail through the new configuration before wiping."""
    extra_files: tuple[Path, ...] = ()
    """More files that may hold copies of the plaintext and are to be wiped."""


class TargetsSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[target]``."""

    exim: EximTargetSettings = field(default_factory=EximTargetSettings)


class AwsSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[aws]``. Endpoints and credentials come from the standard AWS_* variables and files."""

    profile: str | None = None
    """Named profile of the AWS configuration."""
    region: str | None = None
    """Region of API calls. Default: the first region of the credential."""


class RotationSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[rotation]``: when a credential is renewed, and how careful."""

    max_age_days: Annotated[int, Meta(ge=1, le=3650)] = 90
    """An older credential is overdue."""
    jitter_days: Annotated[int, Meta(ge=0, le=365)] = 7
    """``rotate --if-due`` starts up to so many days earlier, another number on each host."""
    grace_hours: Annotated[int, Meta(ge=0, le=8760)] = 24
    """A replaced key is deleted after so many hours without a use."""
    test_timeout_s: Annotated[float, Meta(gt=0, le=600)] = 120.0
    """Time for a new key to become valid everywhere at AWS."""
    drain_timeout_s: Annotated[float, Meta(gt=0, le=3600)] = 120.0
    """Time to wait for SMTP sessions that still use the old key."""


class PanicSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[panic]``: how a leak is cut off."""

    drain_timeout_s: Annotated[float, Meta(gt=0, le=600)] = 10.0
    """Time for our own SMTP sessions to end before the leaked key's user is denied everything."""
    proof_timeout_s: Annotated[float, Meta(gt=0, le=600)] = 30.0
    """Time in which SES must refuse the leaked key three times in a row."""


class RelayApiSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[relay.api]``: sending through the SES API, by the role of the instance."""

    regions: tuple[str, ...] = ()
    """Regions in the order in which they are tried. Default: the region of ``[aws]``."""


class RelaySettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[relay]``: the submission service. It listens where there is at least one app."""

    listen: tuple[str, ...] = ("127.0.0.1:2525", "[::1]:2525")
    """``ADDRESS:PORT`` to listen on. One that is not loopback needs certificate, key and AUTH."""
    unix_sockets: bool = True
    """Whether ``relay.sock`` (SMTP) and ``lmtp.sock`` (LMTP) are opened as well."""
    certificate: Path | None = None
    """PEM file with the certificate chain; TLS begins with the connection."""
    certificate_key: Path | None = None
    """PEM file with the certificate's private key."""
    upstream: Literal["smtp", "api"] = "smtp"
    """``smtp`` uses the credential, ``api`` the role of the instance and no credential at all."""
    api: RelayApiSettings = field(default_factory=RelayApiSettings)
    processes: Annotated[int, Meta(ge=1, le=64)] = 1
    """Processes that serve the relay."""
    max_connections: Annotated[int, Meta(ge=1, le=10_000)] = 500
    """Clients at one time, for each process; one user has at most half of them."""
    max_upstream_connections: Annotated[int, Meta(ge=1, le=1000)] = 20
    """SMTP sessions at one time, for each process and credential."""
    command_timeout_s: Annotated[float, Meta(gt=0, le=3600)] = 300.0
    """Time for a client to send its next command or piece of a message."""
    session_timeout_s: Annotated[float, Meta(gt=0, le=86_400)] = 3600.0
    """Time that one message may take to come in."""
    spool_directory: Path = Path("/var/lib/sesguard/relay")
    """Directory of the queue, the ledger and the rates."""
    bounce_after_hours: Annotated[float, Meta(gt=0, le=2400)] = 48.0
    """Mail that could not be delivered for so long goes back to its envelope sender."""
    max_spool_bytes: Annotated[int, Meta(ge=1_000_000, le=10**15)] = 10_000_000_000
    """Bytes of mail in the queue; over it mail is deferred."""
    ledger_days: Annotated[int, Meta(ge=1, le=3650)] = 90
    """Time that the ledger remembers a message."""
    log_addresses: bool = False
    """Whether the log names senders and recipients."""


class AppSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[apps.NAME]``: an app that sends through the relay. ``NAME:*`` is one app for each user."""

    users: tuple[str, ...] = ()
    """Users that are the app: names, numbers, or patterns such as ``web*`` for people."""
    groups: tuple[str, ...] = ()
    """Groups that are the app (names or numbers); on TCP they are those of the user."""
    require_token: bool = False
    """Whether the app must also log in with a token of ``sesguard app add``."""
    senders: tuple[str, ...] = ()
    """Addresses, ``*@domain`` or ``*`` that it may send as; ``{user}`` is the name of the user."""
    allowed_recipients: tuple[str, ...] = ()
    """Addresses, ``*@domain`` or ``*`` that it may write to; empty: all that are not denied."""
    denied_recipients: tuple[str, ...] = ()
    """Addresses, ``*@domain`` or ``*`` that it may not write to."""
    max_recipients: Annotated[int, Meta(ge=1, le=50)] = 50
    """Recipients of one message; SES takes 50."""
    max_message_bytes: Annotated[int, Meta(ge=1000, le=41_943_040)] = 41_943_040
    """Size of one message; SES takes 40 MiB."""
    per_minute: Count | None = None
    """Recipients in a minute."""
    per_hour: Count | None = None
    """Recipients in an hour."""
    per_day: Count | None = None
    """Recipients in a day."""
    policy: Literal["enforce", "learn", "hold"] = "enforce"
    """Rules on senders, recipients and rates: ``learn`` only notes, ``hold`` keeps in the queue."""
    delivery: Literal["pass", "spool"] = "spool"
    """``spool`` takes a message when it is on our disk, ``pass`` when SES has it."""
    credential: CredentialName | None = None
    """The credential to use. Default: the one for the sender's domain."""
    configuration_set: str | None = None
    """SES configuration set of its mail. Default: that of the credential."""


class Settings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole file."""

    state_directory: Path = Path("/var/lib/sesguard")
    """State database: the journal of changes."""
    credentials: dict[CredentialName, CredentialSettings] = field(default_factory=dict)
    vault: VaultSettings = field(default_factory=VaultSettings)
    daemon: DaemonSettings = field(default_factory=DaemonSettings)
    lookup: LookupsSettings = field(default_factory=LookupsSettings)
    target: TargetsSettings = field(default_factory=TargetsSettings)
    aws: AwsSettings = field(default_factory=AwsSettings)
    rotation: RotationSettings = field(default_factory=RotationSettings)
    panic: PanicSettings = field(default_factory=PanicSettings)
    relay: RelaySettings = field(default_factory=RelaySettings)
    apps: dict[AppName, AppSettings] = field(default_factory=dict)
    path: Path | None = None
    """The file that was read; not a key of the file."""
