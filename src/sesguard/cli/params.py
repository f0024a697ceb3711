"""Types of command-line values that several commands share: a wrong value is a `UsageError`."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from sesguard.core.credential import require_credential_id
from sesguard.core.endpoints import require_region
from sesguard.errors import CredentialError, UpstreamError, UsageError
from sesguard.upstream.smtp import require_address

FILE: Final = click.Path(path_type=Path, dir_okay=False)
"""A file, which need not exist yet."""


def region(text: str) -> str:
    """An AWS region name."""
    return _checked(require_region, text)


def credential_name(text: str) -> str:
    """The name of a credential."""
    return _checked(require_credential_id, text)


def address(text: str) -> str:
    """An address that SMTP can carry."""
    return _checked(require_address, text)


def _checked(check: Callable[[str], str], text: str) -> str:
    try:
        return check(text)
    except (CredentialError, UpstreamError) as error:
        raise UsageError(error.template, hint=error.hint_template, **error.parameters) from error
