"""SES credentials that never existed, and the vector files: for the tests in this directory."""

import base64
import random
import string
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

VECTORS = Path(__file__).parent / "vectors"

USER = "AKIAIOSFODNN7EXAMPLE"
PASSWORD = "BLBM/9hSUELfq8Gw+rU1YcBjkOxGbhT2XG763xVLGWL9"
OLD_PASSWORD = "An60U4ZD3sd4fg+FvXUjayOipTt8LO4rUUmhpdX6ctDy"
RAW_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
HOST = "email-smtp.us-east-1.amazonaws.com"


@dataclass(frozen=True)
class Pair:
    """An SMTP user and password."""

    username: str
    password: str


def make_password(randomness: random.Random, version: int = 4) -> str:
    """A password as AWS derives it: the version byte and 32 bytes of an HMAC."""
    return base64.b64encode(bytes([version]) + randomness.randbytes(32)).decode()


def make_username(randomness: random.Random) -> str:
    """An access key id."""
    return "AKIA" + "".join(randomness.choices(string.ascii_uppercase + string.digits, k=16))


usernames = st.text(string.ascii_uppercase + string.digits, min_size=16, max_size=16).map(
    lambda text: "AKIA" + text
)
passwords = st.binary(min_size=32, max_size=32).map(
    lambda digest: base64.b64encode(b"\x04" + digest).decode()
)
pairs = st.builds(Pair, usernames, passwords)
distinct_pairs = st.lists(
    pairs, min_size=1, max_size=4, unique_by=(lambda p: p.username, lambda p: p.password)
)


def read_stanzas(path: Path) -> list[dict[str, str]]:
    """Stanzas of ``name: value`` lines, separated by blank lines; ``#`` starts a comment."""
    stanzas = []
    for block in path.read_text("utf-8").split("\n\n"):
        lines = [line for line in block.splitlines() if line and not line.startswith("#")]
        if lines:
            stanzas.append(dict(line.split(": ", 1) for line in lines))
    return stanzas
