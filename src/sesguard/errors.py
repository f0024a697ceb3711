"""The one exception tree of sesguard.

Every error is a message template, its parameters, and an optional hint that says what to do. The
English text is ``str(error)``; the command line translates the *template* and fills in the
parameters afterwards, so that the layers below know nothing about languages. A parameter is never
a secret.

    Error                               exit 4   failed and a person must act
    ├── UsageError                      exit 2   wrong command line
    │   └── SettingsError               exit 2   wrong settings file; names file, line and key
    ├── CheckFailed                     exit 1   a negative result: nothing is broken by it
    ├── RolledBack                      exit 3   failed, and everything is as it was
    ├── TemporaryFailure                exit 75  try again later (sysexits EX_TEMPFAIL)
    ├── SystemFault                     exit 4   the operating system said no
    ├── CredentialError                 exit 4   none such, or not an SES credential
    ├── VaultError                      exit 4
    │   ├── VaultMissing                exit 4
    │   ├── VaultTampered               exit 4
    │   ├── VaultRolledBack             exit 4
    │   ├── VaultBusy                   exit 4
    │   └── KeyProviderError            exit 4
    │       ├── KeyProviderLocked       exit 4
    │       ├── KeyProviderDenied       exit 4
    │       ├── KeyProviderUnavailable  exit 4
    │       └── WrongKey                exit 4
    ├── AwsError                        exit 4
    │   ├── AwsDenied                   exit 4
    │   ├── AwsThrottled                exit 4
    │   ├── AwsTransient                exit 4
    │   └── AwsPermanent                exit 4
    ├── DeployError                     exit 4
    ├── UpstreamError                   exit 4
    └── SandboxError                    exit 4

Codes are a contract (docs/reference/exit-codes.md); an unknown code is a failure.
"""

from typing import ClassVar


class Error(Exception):
    """
    Base of every error that sesguard raises on purpose.

    Args:
        template: What failed, lower case, no full stop, with ``{name}`` fields.
        hint: One imperative sentence that says what to do, with the same fields.
        parameters: Values of the fields. Never a secret.
    """

    exit_code: ClassVar[int] = 4

    def __init__(self, template: str, /, *, hint: str | None = None, **parameters: object) -> None:
        super().__init__(template)
        self.template = template
        self.hint_template = hint
        self.parameters = parameters

    def __str__(self) -> str:
        return fill(self.template, self.parameters)

    @property
    def hint(self) -> str | None:
        """The English hint, filled in, or None."""
        return None if self.hint_template is None else fill(self.hint_template, self.parameters)


def fill(template: str, parameters: dict[str, object]) -> str:
    """Fill the ``{name}`` fields of `template`; without parameters the text is left alone."""
    return template.format_map(parameters) if parameters else template


class UsageError(Error):
    """The command line asks for something that cannot be done as written."""

    exit_code = 2


class SettingsError(UsageError):
    """The settings file is wrong; the message names file, line and key."""


class CheckFailed(Error):
    """A check came out negative: findings, a failed verification, something overdue."""

    exit_code = 1


class RolledBack(Error):
    """A change failed and everything was put back as it was."""

    exit_code = 3


class TemporaryFailure(Error):
    """Nothing is wrong for good: the same act may work later. Mail is deferred, never bounced."""

    exit_code = 75


class SystemFault(Error):
    """The operating system refused: a missing file, a full disk, a loose mode."""


class CredentialError(Error):
    """No such credential, version or label, or a value that is not an SES credential."""


class VaultError(Error):
    """The vault cannot be used as it is."""


class VaultMissing(VaultError):
    """There is no vault at the configured place yet."""


class VaultTampered(VaultError):
    """Vault data was changed, cut short or mixed up; nothing of it was used."""


class VaultRolledBack(VaultError):
    """The vault is an older generation than one that was already in use."""


class VaultBusy(VaultError):
    """Another process is changing the vault."""


class KeyProviderError(VaultError):
    """The key provider could not wrap or unwrap a data key."""


class KeyProviderLocked(KeyProviderError):
    """The key exists but needs a passphrase, PIN or device that is not there."""


class KeyProviderDenied(KeyProviderError):
    """The key provider refuses this caller."""


class KeyProviderUnavailable(KeyProviderError):
    """The key provider cannot be reached or has no key."""


class WrongKey(KeyProviderError):
    """The data key was wrapped by another key."""


class AwsError(Error):
    """AWS refused or could not be reached."""


class AwsDenied(AwsError):
    """The caller's AWS identity lacks a permission, or its key is invalid."""


class AwsThrottled(AwsError):
    """AWS asks for fewer calls."""


class AwsTransient(AwsError):
    """A time-out or a fault on the AWS side; the call may have taken effect."""


class AwsPermanent(AwsError):
    """AWS will give the same answer again."""


class DeployError(Error):
    """A target cannot be read, planned, changed or undone."""


class UpstreamError(Error):
    """The sending side failed: connection, TLS, AUTH or a reply of the upstream."""


class SandboxError(Error):
    """The sandbox could not be started or reached."""
