"""
Law: for every layout and configuration, undo(apply(config)) == config to the byte.

The real deployer plans, the real engine replaces the files and puts them back; Exim is not needed,
because the steps that ask Exim are left out here (tests/real runs them).
"""

import base64
import stat
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sesguard.config.load import parse_settings
from sesguard.config.schema import Settings
from sesguard.core.credential import Credential, CredentialVersion
from sesguard.core.encodings import encoded_forms
from sesguard.core.secret import Secret
from sesguard.deploy.exim.deployer import EximDeployer
from sesguard.deploy.steps import ReplaceFile
from sesguard.system.search import search_files
from sesguard.vault.providers.keyfile import KeyfileProvider
from sesguard.vault.sealer import VaultSealer
from sesguard.workflow.engine import Engine
from sesguard.workflow.journal import Journal

CONFIGS = sorted((Path(__file__).parent / "configs").glob("*.conf"))
USER = "AKIAIOSFODNN7EXAMPLE"
LAYOUTS = ("monolithic", "debian", "cpanel")

DEBIAN_OPTIONS = (
    "dc_smarthost='email-smtp.us-east-1.amazonaws.com::587'\ndc_use_split_config='%s'\n"
)
DEBIAN_CONFIG = """\
begin routers
smarthost:
  driver = manualroute
  transport = remote_smtp_smarthost
  route_list = * DCsmarthost byname
begin transports
remote_smtp_smarthost:
  driver = smtp
  hosts_try_auth = <; ${if exists{CONFDIR/passwd.client} \\
    {${lookup{$host}nwildlsearch{CONFDIR/passwd.client}{$host_address}}}{}}
begin authenticators
PASSWDLINE=${lookup{$host}nwildlsearch{CONFDIR/passwd.client}{$value}fail}
plain:
  driver = plaintext
  public_name = PLAIN
  client_send = "<; ^${extract{1}{:}{PASSWDLINE}}^${extract{2}{:}{PASSWDLINE}}"
"""

Facts = dict[str, tuple[bytes, int]]


def facts(directory: Path) -> Facts:
    """Bytes and mode of every file."""
    return {
        str(path.relative_to(directory)): (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def make_settings(directory: Path, layout: str, mode: str = "lookup") -> Settings:
    """Settings for an installation below `directory`."""
    text = f"""
[credentials.ses]
regions = ["us-east-1"]

[apps.exim]
users = ["nobody"]

[target.exim]
mode = "{mode}"
layout = "{layout}"
binary = "{directory.parent}/exim"
config_file = "{directory}/exim.conf"
debian_directory = "{directory}/exim4"
cpanel_local_file = "{directory}/exim.conf.local"
rebuild_command = ["true"]
canary = false
"""
    return parse_settings(text.encode(), Path("/sesguard.toml"))


def install(directory: Path, layout: str, config: bytes, password: str) -> None:
    """Write the files of one layout, with copies and modes as they are found."""
    main = directory / "exim.conf"
    if layout == "debian":
        etc = directory / "exim4"
        for part in ("router", "transport", "auth"):
            (etc / "conf.d" / part).mkdir(parents=True)
        split = len(config) % 2 == 0
        (etc / "update-exim4.conf.conf").write_text(DEBIAN_OPTIONS % str(split).lower())
        (etc / "exim4.conf.template").write_text(DEBIAN_CONFIG)
        routers, _, rest = DEBIAN_CONFIG.partition("begin transports\n")
        transports, _, auth = rest.partition("begin authenticators\n")
        for part, text in (("router", routers), ("transport", transports), ("auth", auth)):
            (etc / "conf.d" / part / "30_exim4-config").write_text(text)
        (etc / "passwd.client").write_text(
            f"# comment\n*.amazonaws.com:{USER}:{password}\nother.example.net:user:word\n"
        )
        (etc / "passwd.client").chmod(0o640)
        (etc / "exim4.conf.template.bak").write_bytes(config)
        main.write_text("generated\n")
    elif layout == "cpanel":
        (directory / "exim.conf.local").write_bytes(config)
        main.write_bytes(b"generated\n" + config)
    else:
        main.write_bytes(config)
    (directory / "exim.conf.bak").write_bytes(config)
    (directory / "exim.conf.bak").chmod(0o604)


def check_law(layout: str, config: bytes, password: str, *modes: str) -> None:
    """Apply one mode or several in turn, each twice; undo; compare."""
    with tempfile.TemporaryDirectory() as name:
        directory, state = Path(name) / "host", Path(name) / "state"
        directory.mkdir()
        state.mkdir()
        install(directory, layout, config, password)
        before = facts(directory)
        exim = Path(name) / "exim"
        exim.write_text("#!/bin/sh\necho exim_user = nobody\n")
        exim.chmod(0o755)
        provider = KeyfileProvider(state / "key")
        provider.ensure_key()
        with closing(Journal(state / "journal.db", VaultSealer(provider))) as journal:
            runs = []
            for mode in modes or ("lookup",):
                made = make_settings(directory, layout, mode)
                deployer = EximDeployer(made, lambda: vault(password))
                engine = Engine("target", journal, deployer.step_types, deployer.context())
                steps = [s for s in deployer.plan().steps if isinstance(s, ReplaceFile)]
                assert steps
                runs.append((engine, engine.run("exim", steps, "")))
                if layout == "cpanel":
                    (directory / "exim.conf").write_text("built anew\n")
                needles = encoded_forms(Secret(password), USER)
                assert search_files([directory], needles) == []
                assert list(deployer.plan().steps) == []
            for engine, run in reversed(runs):
                engine.undo(run)
        after = facts(directory)
        if layout == "cpanel":
            # The generated file belongs to the rebuild step.
            assert after.pop("exim.conf") != before.pop("exim.conf")
        assert before == after


def vault(password: str) -> Mapping[str, Credential]:
    """What the vault holds."""
    version = CredentialVersion(1, USER, {"us-east-1": Secret(password)}, "", "")
    return {"ses": Credential("ses").add_pending(version).promote()}


PASSWORDS = st.binary(min_size=32, max_size=32).map(
    lambda digest: base64.b64encode(b"\x04" + digest).decode()
)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_real_world_configurations_come_back_to_the_byte(layout: str, path: Path) -> None:
    """Shapes from published guides, panels and distributions."""
    password = "BLBM/9hSUELfq8Gw+rU1YcBjkOxGbhT2XG763xVLGWL9"
    config = path.read_bytes().replace(b"@USER@", USER.encode())

    check_law(layout, config.replace(b"@PASSWORD@", password.encode()), password)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("modes", [("relay",), ("lookup", "relay", "lookup")], ids="-".join)
def test_relay_mode_comes_back_to_the_byte(layout: str, path: Path, modes: tuple[str, ...]) -> None:
    """Relay mode from plaintext, from lookup mode, and back to lookup mode."""
    password = "BLBM/9hSUELfq8Gw+rU1YcBjkOxGbhT2XG763xVLGWL9"
    config = path.read_bytes().replace(b"@USER@", USER.encode())

    check_law(layout, config.replace(b"@PASSWORD@", password.encode()), password, *modes)


_LINES = st.text(
    st.characters(codec="utf-8", exclude_characters="\n\r\\\0"),
    max_size=60,
)


@settings(max_examples=60)
@given(
    st.sampled_from(LAYOUTS),
    st.sampled_from(CONFIGS),
    PASSWORDS,
    st.lists(_LINES.map(lambda line: f"# {line}"), max_size=5),
    st.booleans(),
)
def test_generated_configurations_come_back_to_the_byte(
    layout: str, path: Path, password: str, comments: list[str], mention: bool
) -> None:
    """Any comments between the sections, with or without one more copy of the secret in them."""
    config = path.read_bytes().replace(b"@USER@", USER.encode())
    extra = "\n".join([*comments, f"# was: {password}" if mention else "#", ""])
    parts = config.split(b"\nbegin ")
    config = (b"\n" + extra.encode() + b"begin ").join(parts)

    check_law(layout, config.replace(b"@PASSWORD@", password.encode()), password)
