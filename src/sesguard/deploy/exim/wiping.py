"""
What may be taken out of a file of Exim's, and how the change is shown.

Raises `DeployError` where wiping would cost mail or change what a password is compared with.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from sesguard.core.plaintext.detect import find_credentials
from sesguard.deploy.exim.syntax import logical_lines, macros
from sesguard.deploy.known import KnownSecrets
from sesguard.deploy.steps import ReplaceFile
from sesguard.errors import DeployError

_MASK: Final = re.compile(r"^(.)(\s*hide\s+\w+\s*=).*", re.DOTALL)


def require_known(path: Path, redacted: bytes) -> None:
    """Refuse to take out a credential that the vault does not hold: mail would stop."""
    for item in find_credentials(decode(redacted), path.name):
        raise DeployError(
            "{path}, line {line}: the credential {username} is not in the vault",
            hint="run: sesguard credential import --from {path} --username {username}",
            path=path,
            line=item.line,
            username=item.username,
        )


def require_unused(path: Path, text: str, known: KnownSecrets) -> None:
    """
    Refuse when the password does more in this file than to be sent to SES.

    In a comparison (``server_condition``) the word that takes its place would become a password.
    """
    lines = text.splitlines()
    logical = list(logical_lines(lines))
    defined = {line.start: name for line in logical for name in macros([line.text])}
    holding = [line for line in logical if known.redacted(encode(line.text)) != encode(line.text)]
    for line in holding:
        name = defined.get(line.start)
        users = [other for other in logical if name and name in other.text and other is not line]
        if name is None or users:
            raise DeployError(
                "{path}, line {line}: the password is used here for something else as well",
                hint="change that by hand first, then plan again",
                path=path,
                line=(users[0] if users else line).start + 1,
            )


def masked_diff(
    steps: Sequence[ReplaceFile], originals: Mapping[str, bytes], known: KnownSecrets
) -> str:
    """One line of context; secrets and the values of hidden options are masked."""
    lines: list[str] = []
    for step in steps:
        lines += difflib.unified_diff(
            decode(known.redacted(originals[step.path])).splitlines(keepends=True),
            decode(step.new_content).splitlines(keepends=True),
            step.path,
            step.path,
            n=1,
        )
    return "".join(
        line if "sesguard" in line else _MASK.sub(r"\1\2 ********\n", line) for line in lines
    )


def decode(content: bytes) -> str:
    """The text of a file; what is not UTF-8 survives."""
    return content.decode("utf-8", "surrogateescape")


def encode(text: str) -> bytes:
    """The reverse of `decode`."""
    return text.encode("utf-8", "surrogateescape")
