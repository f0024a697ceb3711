"""What the layers above hand to each other: small Protocols, each with one job."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from sesguard.core.credential import CredentialVersion


class CredentialSource(Protocol):
    """Gives the version of a credential that is in use at this moment."""

    def current(self, credential_id: str) -> CredentialVersion:
        """
        The CURRENT version.

        Raises:
            CredentialError: There is no such credential, or it has no CURRENT version.
            VaultError: The vault cannot be read and there is no last good copy in memory.
        """
        ...


class Sealer(Protocol):
    """Encrypts what must not lie on the disk in the clear, such as a checkpoint with a secret."""

    def seal(self, plaintext: bytes, context: Mapping[str, str]) -> bytes:
        """Encrypt `plaintext`, bound to `context`: it opens only with the same context."""
        ...

    def unseal(self, sealed: bytes, context: Mapping[str, str]) -> bytes:
        """
        Decrypt what `seal` made.

        Raises:
            VaultTampered: Changed data, or another context.
            KeyProviderError: The key cannot be had.
        """
        ...


class RawSender(Protocol):
    """Sends whole messages by an API; used by several threads at a time."""

    def send(
        self, region: str, envelope_sender: str, recipients: Sequence[str], message: bytes
    ) -> str:
        """
        Send one message to all recipients, or to none.

        Args:
            region: Where to.
            envelope_sender: Address, or empty for a bounce.
            recipients: At least one address.
            message: Header and body, with CRLF line ends, without the dots of SMTP.

        Returns:
            The id that it was given.

        Raises:
            TemporaryFailure: The region cannot be reached: nothing was sent.
            AwsTransient: No answer, or a fault on the AWS side: it may have been sent.
            AwsThrottled: A quota is used up; it was not sent.
            AwsDenied: The caller may not send it.
            AwsPermanent: It is refused; the parameters `code` and `reason` say why.
        """
        ...
