"""
What `sesguard.vault.providers.pkcs11` and the process that it starts say to each other.

One JSON object on the standard input of `sesguard.vault.providers.pkcs11_token`, one on its
standard output. Both are pipes: neither the PIN nor a key is ever in a file, an argument or the
environment.
"""

from typing import Final, TypeVar

from msgspec import Struct, json

from sesguard.core.secret import Secret


class Wrapped(Struct, frozen=True, tag=True):
    """A vault key as the file has it, and what opens it."""

    mechanism: str
    """One of the names in `sesguard.vault.providers.pkcs11_token`."""
    serial: str
    """Serial number of the token."""
    key_label: str
    """CKA_LABEL of the key in the token."""
    key_id: bytes
    """CKA_ID of that key; it may be empty."""
    data: bytes


class Wrap(Struct, frozen=True, tag=True):
    """Wrap this vault key; make the key in the token if there is none with that label."""

    module: str
    token_label: str
    pin: Secret
    key_label: str
    key: bytes


class Unwrap(Struct, frozen=True, tag=True):
    """Unwrap this one."""

    module: str
    token_label: str
    pin: Secret
    wrapped: Wrapped


class Unwrapped(Struct, frozen=True, tag=True):
    """The vault key."""

    key: bytes


class Failure(Struct, frozen=True, tag=True):
    """An error of `sesguard.errors`, to be raised by the one who asked."""

    kind: str
    """Name of its class."""
    template: str
    hint: str | None
    parameters: dict[str, str]


Request = Wrap | Unwrap
Answer = Wrapped | Unwrapped | Failure

Asked = TypeVar("Asked", Wrapped, Unwrapped)


def reveal_bytes(message: Request | Answer) -> bytes:
    """A message as it goes through a pipe; what is secret in it is in the clear."""
    return json.encode(message, enc_hook=Secret.reveal)


def parse_request(data: bytes) -> Request:
    """
    The request in what came through the pipe.

    Raises:
        ValueError: It is none.
    """
    return _REQUESTS.decode(data)


def parse_answer(data: bytes, kind: type[Asked]) -> Asked | Failure:
    """
    The answer in what came through the pipe.

    Raises:
        ValueError: It is none of that kind, and no failure.
    """
    parsed: Asked | Failure = json.decode(data, type=kind | Failure)
    return parsed


_REQUESTS: Final[json.Decoder[Request]] = json.Decoder(
    Request, dec_hook=lambda _kind, value: Secret(value)
)
