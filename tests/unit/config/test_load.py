"""Every mistake in the settings file is told with file, line and key: `sesguard.config.load`."""

from pathlib import Path

import msgspec
import pytest

from sesguard.config.load import DEFAULT_PATH, load_settings, parse_settings, settings_path
from sesguard.config.schema import CredentialSettings, LookupSettings, Settings
from sesguard.errors import SettingsError

FILE = Path("/etc/sesguard/sesguard.toml")
NAME = "expected a name of lower-case letters, digits, - and _, at most 63"
SES = '[credentials.ses]\nregions = ["us-east-1"]\n'


def fault(text: str | bytes) -> tuple[str, str | None]:
    """Message, without the file, and hint of what is wrong with a text."""
    content = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(SettingsError) as caught:
        parse_settings(content, FILE)
    assert 2 == caught.value.exit_code
    return str(caught.value).removeprefix(f"{FILE}, "), caught.value.hint


def test_an_empty_file_gives_the_defaults() -> None:
    """Nothing has to be set, and the file is remembered."""
    assert Settings(path=FILE) == parse_settings(b"", FILE)


def test_what_is_set_is_taken_and_the_rest_is_default() -> None:
    """Of a credential, a nested table and paths."""
    text = SES + '[lookup.exim]\nusers = ["mail"]\ntimeout_s = 2\n[vault]\ndirectory = "/v"\n'
    settings = parse_settings(text.encode(), FILE)
    assert {"ses": CredentialSettings(regions=("us-east-1",))} == settings.credentials
    assert LookupSettings(users=("mail",), timeout_s=2) == settings.lookup.exim
    assert Path("/v") == settings.vault.directory
    assert Settings().lookup.postfix == settings.lookup.postfix


def test_the_host_of_a_credential_is_its_first_regions() -> None:
    """Unless another one is set."""
    regions = ("eu-west-1", "us-east-1")
    assert "email-smtp.eu-west-1.amazonaws.com" == CredentialSettings(regions=regions).smtp_host
    assert "vpce.example" == CredentialSettings(regions=regions, host="vpce.example").smtp_host


LINES: dict[str, tuple[str, str]] = {
    "top level": ("\nstat_directory = '/x'\n", "line 2: stat_directory: unknown key"),
    "plain table": (
        SES + "[vault]\n\ndirectry = '/x'\n",
        "line 5: vault.directry: unknown key",
    ),
    "second of two credentials": (
        SES + "port = 587\n[credentials.eu]\nregions = ['eu-west-1']\nport = 0\n",
        "line 6: credentials.eu.port: expected integer >= 1",
    ),
    "the same fault in both credentials": (
        SES + "port = 0\n[credentials.eu]\nregions = ['eu-west-1']\nport = 0\n",
        "line 3: credentials.ses.port: expected integer >= 1",
    ),
    "quoted table": (
        '[credentials . "ses"]\nregions = ["us-east-1"]\n"po\\u0072t" = 99999\n',
        "line 3: credentials.ses.port: expected integer <= 65535",
    ),
    "dotted key": (
        "x.y = 1\n",
        "line 1: x: unknown key",
    ),
    "dotted key below a table": (
        "[lookup]\nexim.enabled = true\npostfix . 'timeout_s' = 61.5\n",
        "line 3: lookup.postfix.timeout_s: expected number <= 60.0",
    ),
    "inline table": (
        "# c\ncredentials = { ses = { regions = ['us-east-1'], prot = 1 } }\n",
        "line 2: credentials.ses.prot: unknown key",
    ),
    "array over several lines": (
        "[lookup.exim]\nusers = [ # who\n  'a',\n\n  'b', 3,\n]\n",
        "line 5: lookup.exim.users[2]: expected string, got integer",
    ),
    "array with a key below it": (
        "[lookup.exim]\nusers = [\n'[x]', '''\n{y=''',\n]\ntimeout_s = 1.5e3\n",
        "line 6: lookup.exim.timeout_s: expected number <= 60.0",
    ),
    "string over several lines": (
        '[aws]\nprofile = """\nregion = 3\n"""\nregion = 3\n',
        "line 5: aws.region: expected string, got integer",
    ),
    "region of a list": (
        "[credentials.ses]\nregions = [\n 'us-east-1',\n 'eu',\n]\n",
        "line 4: credentials.ses.regions[1]: 'eu' is not an AWS region name",
    ),
    "missing key": (
        "\n[credentials.ses]\nport = 25\n",
        "line 2: credentials.ses.regions: this key is required",
    ),
    "empty list": (
        "[credentials.ses]\nregions = []\n",
        "line 2: credentials.ses.regions: expected array of length >= 1",
    ),
    "name of a credential": (
        SES + '[credentials."My SES"]\nregions = ["us-east-1"]\n',
        f"line 3: credentials.My SES: {NAME}",
    ),
    "name of a target's credential": (
        "[target.exim]\ncredential = 'A'\n",
        f"line 2: target.exim.credential: {NAME}",
    ),
    "table for a value": (
        "[daemon.user]\nname = 'x'\n",
        "line 1: daemon.user: expected string, got table",
    ),
    "value for a table": ("vault = 3\n", "line 1: vault: expected table, got integer"),
    "array of tables": (
        "[[credentials]]\n[[credentials]]\n",
        "line 1: credentials: expected table, got array",
    ),
    "truth": (
        "[lookup.exim]\nenabled = 1\n",
        "line 2: lookup.exim.enabled: expected true or false, got integer",
    ),
    "choice": (
        "[vault]\nkey_provider = 'hsm'\n",
        "line 2: vault.key_provider: invalid enum value 'hsm'",
    ),
    "choice over two lines": (
        "\n[vault]\nkey_provider = 'k\\n - at `$.x`'\n".replace("'", '"'),
        "line 3: vault.key_provider: invalid enum value 'k\\n - at `$.x`'",
    ),
    "relative path": (
        "[vault]\ndirectory = 'v'\n",
        "line 2: vault.directory: expected an absolute path",
    ),
    "path that is none": ("[vault]\ndirectory = 3\n", "line 2: vault.directory: expected a path"),
    "path in a list": (
        "[target.exim]\nextra_files = ['/a',\n'b']\n",
        "line 3: target.exim.extra_files[1]: expected an absolute path",
    ),
    "no key of the file": ("path = '/x'\n", "line 1: path: unknown key"),
    "windows line ends": ("[vault]\r\n# c\r\nkey = 3\r\n", "line 3: vault.key: unknown key"),
}


@pytest.mark.parametrize("case", LINES)
def test_a_wrong_setting_is_named_with_its_line_and_key(case: str) -> None:
    """However the key is written."""
    text, expected = LINES[case]
    assert expected == fault(text)[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[vault]\nx = \n", "line 2: not valid TOML: invalid value"),
        ("[vault]\nx = 'a\n", "line 2: not valid TOML: "),
        ("a = 1\n\nb\n", "line 3: not valid TOML: "),
        ('a = """\n\n', "line 1: not valid TOML: unterminated string"),
        (b"a = 1\nb = '\xff'\n", "line 2: not valid TOML: not UTF-8 text"),
        ("a = " + "[" * 5000, "line 1: not valid TOML: nested too deeply"),
        ("a = 1\n\na = 2\n", "line 3: a: this key is there twice"),
        ("users = [\n'a',\n]\nusers = [\n'b',\n]\n", "line 4: users: this key is there twice"),
        ("[vault]\n[daemon]\n[vault]\n", "line 3: vault: this key is there twice"),
        ("a = { b = 1, b = 2 }\n", "line 1: a: this key is there twice"),
    ],
)
def test_a_fault_of_the_toml_itself_is_named_with_its_line(
    text: str | bytes, expected: str
) -> None:
    """And with the key, where one is there twice."""
    assert fault(text)[0].startswith(expected)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (SES + "prot = 587\n", "did you mean port?"),
        ("[lookup.exim]\ntimeout = 1\n", "did you mean timeout_s?"),
        ("zzz = 1\n", "see docs/reference/settings.md"),
        ("a = \n", "correct the line; strings need quotes"),
        ("[credentials.a]\nregions = ['x']\n", "use a name such as us-east-1 or eu-central-1"),
        (
            "[credentials.a]\nregions = ['email-smtp.eu-west-1.amazonaws.com']\n",
            "use eu-west-1",
        ),
    ],
)
def test_the_hint_says_what_to_write(text: str, hint: str) -> None:
    """The nearest known key, the region, or where to read."""
    assert hint == fault(text)[1]


def test_a_value_of_the_wrong_type_is_an_error_for_every_key() -> None:
    """Of these tables, whatever the type is."""
    for table in ("vault", "daemon", "aws"):
        for field in msgspec.structs.fields(type(getattr(Settings(), table))):
            message, _hint = fault(f"[{table}]\n{field.name} = 1.5\n")
            assert message.startswith(f"line 2: {table}.{field.name}: expected ")


def test_a_file_is_read_from_the_disk(tmp_path: Path) -> None:
    """And a missing one is an error that says how to make it."""
    path = tmp_path / "sesguard.toml"
    with pytest.raises(SettingsError, match=f"there is no settings file {path}") as caught:
        load_settings(path)
    assert "run: sesguard init (or name another file with --config)" == caught.value.hint
    path.write_text(SES)
    assert ["ses"] == list(load_settings(path).credentials)


@pytest.mark.parametrize(
    ("option", "environment", "expected"),
    [
        (None, {}, DEFAULT_PATH),
        (None, {"SESGUARD_CONFIG": ""}, DEFAULT_PATH),
        (None, {"SESGUARD_CONFIG": "/v"}, Path("/v")),
        (Path("/o"), {"SESGUARD_CONFIG": "/v"}, Path("/o")),
    ],
)
def test_the_option_counts_before_the_variable(
    option: Path | None, environment: dict[str, str], expected: Path
) -> None:
    """And the variable before the default."""
    assert expected == settings_path(option, environment)
