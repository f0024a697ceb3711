"""The parsers against the programs whose formats they read."""

import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from sesguard.core.plaintext.detect import parser_named
from unit.core.generated import Pair, make_password, make_username
from unit.core.test_plaintext_laws import MARK, _php_literal, exim, written

EXIM = shutil.which("exim4") or shutil.which("exim")
PHP = shutil.which("php")


def _pairs(rand: random.Random) -> list[Pair]:
    return [Pair(make_username(rand), make_password(rand)) for _ in range(3)]


@pytest.mark.real
@pytest.mark.skipif(EXIM is None, reason="Exim is not installed")
@pytest.mark.parametrize("seed", range(15))
def test_exim_reads_the_same_credentials_from_client_send(seed: int, tmp_path: Path) -> None:
    """What Exim prints for each option, after its own joining, macros and quotes, is the same."""
    rand = random.Random(seed)
    pairs = _pairs(rand)
    text, expected = written(exim, rand, pairs)
    path = tmp_path / "exim.conf"
    path.write_text(text)
    printed = subprocess.run(
        [str(EXIM), "-C", str(path), "-bP", "authenticators"], capture_output=True, text=True
    )
    values = [line for line in printed.stdout.splitlines() if line.startswith("client_send = ")]
    found = parser_named("exim").find("\n".join(values))
    assert [(user, password) for user, password, _line in expected] == [
        (item.username, item.password.reveal()) for item in found
    ]


@pytest.mark.real
@pytest.mark.skipif(PHP is None, reason="PHP is not installed")
def test_php_reads_the_same_password_from_a_literal() -> None:
    """Every string literal that the law test writes is what PHP makes of it."""
    rand = random.Random(1)
    literals = [_php_literal(rand, make_password(rand)) for _ in range(200)]
    program = f"echo json_encode([{', '.join(literals)}]);"
    printed = subprocess.run([str(PHP), "-n", "-r", program], capture_output=True, text=True)
    user = make_username(rand)
    text = "\n".join(
        f"$a{n}->Username = '{user}'; $a{n}->Password = {v};" for n, v in enumerate(literals)
    )
    found = [item.password.reveal() for item in parser_named("php").find(text)]
    assert MARK not in text
    assert json.loads(printed.stdout) == found
