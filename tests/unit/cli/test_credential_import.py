"""sesguard credential import: every source, every refusal, and what the vault holds afterwards."""

import base64
import subprocess
from pathlib import Path

import pytest

from rigs.command_line import Cli, Result, run_on_a_terminal
from sesguard.config.load import load_settings
from sesguard.core.credential import Credential, CredentialVersion
from sesguard.core.encodings import encoded_forms
from sesguard.core.secret import Secret
from sesguard.core.smtp_password import derive_smtp_password
from sesguard.vault.opening import open_vault

KEY_ID = "AKIAIOSFODNN7EXAMPLE"
OTHER_ID = "AKIAI44QH8DHBEXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
PASSWORD = "BLBM/9hSUELfq8Gw+rU1YcBjkOxGbhT2XG763xVLGWL9"
"""Of SECRET_KEY in us-east-1."""
EU_PASSWORD = "BMW5RDrXmmVs0lV7GpI4oLkHXpZ4stDsk6q91z1g38Pk"
"""Of SECRET_KEY in eu-west-1."""
V2_PASSWORD = "An60U4ZD3sd4fg+FvXUjayOipTt8LO4rUUmhpdX6ctDy"
US_HOST = "email-smtp.us-east-1.amazonaws.com"
EU_HOST = "email-smtp.eu-west-1.amazonaws.com"

SOURCES = {
    "passwd.client": f"*.amazonaws.com:{KEY_ID}:{PASSWORD}\n",
    "sasl_passwd": f"[{US_HOST}]:587 {KEY_ID}:{PASSWORD}\n",
    ".env": f"MAIL_HOST={US_HOST}\nMAIL_USERNAME={KEY_ID}\nMAIL_PASSWORD={PASSWORD}\n",
    "dsn.env": f"MAILER_DSN=smtp://{KEY_ID}:{PASSWORD.replace('/', '%2F').replace('+', '%2B')}"
    f"@{US_HOST}:587\n",
    "exim.conf": "begin authenticators\nses:\n  driver = plaintext\n  public_name = PLAIN\n"
    f"  client_send = ^{KEY_ID}^{PASSWORD}\n",
    "wp-config.php": f"<?php\ndefine('WPMS_SMTP_USER', '{KEY_ID}');\n"
    f"define('WPMS_SMTP_PASS', '{PASSWORD}');\n",
    "msmtprc": f"account ses\nhost {US_HOST}\nuser {KEY_ID}\npassword {PASSWORD}\n",
}


def _credential(config: Path, name: str = "ses") -> Credential:
    return open_vault(load_settings(config)).read().credentials[name]


def _current(config: Path) -> CredentialVersion:
    return _credential(config).current()


def _shown(result: Result, *secrets: str) -> list[str]:
    """Forms of the secrets that a run has shown."""
    text = (result.out + result.err).encode()
    forms = [form for each in secrets for form in encoded_forms(Secret(each), KEY_ID).values()]
    return [form.decode("latin-1") for form in forms if form in text]


@pytest.mark.parametrize("name", SOURCES)
def test_file_of_every_form(cli: Cli, host: Path, config: Path, tmp_path: Path, name: str) -> None:
    """The credential is found in each kind of file, and the file is left alone."""
    source = tmp_path / name
    source.write_text(SOURCES[name])

    result = cli("credential", "import", "--from", source)

    assert (0, "") == (result.code, result.out), result.err
    version = _current(config)
    assert KEY_ID == version.username
    assert {"us-east-1": Secret(PASSWORD)} == version.passwords
    assert version.exposed
    assert version.origin.startswith(f"imported from {source} (")
    assert version.created_at.endswith("Z")
    assert SOURCES[name] == source.read_text()
    assert "should" not in result.out
    assert "was exposed" in result.err
    assert [] == _shown(result, PASSWORD)


@pytest.mark.parametrize(
    "text",
    [
        f"{KEY_ID}:{PASSWORD}\n",
        f"{KEY_ID}\n{PASSWORD}\n",
        f"smtp://{KEY_ID}:{PASSWORD.replace('/', '%2F').replace('+', '%2B')}@{US_HOST}:587",
        f"IAM User Name,Smtp Username,Smtp Password\nses-smtp-user,{KEY_ID},{PASSWORD}\n",
    ],
)
def test_standard_input(cli: Cli, host: Path, config: Path, text: str) -> None:
    """What a person pastes is understood."""
    result = cli("credential", "import", "ses", "--stdin", stdin=text)

    assert 0 == result.code, result.err
    assert {"us-east-1": Secret(PASSWORD)} == _current(config).passwords


def test_import_again_is_no_change(cli: Cli, host: Path, config: Path, tmp_path: Path) -> None:
    """The same pair again changes nothing and says so."""
    text = f"{KEY_ID}:{PASSWORD}\n"
    cli("credential", "import", "--stdin", stdin=text)
    before = _credential(config)

    result = cli("credential", "import", "--stdin", stdin=text)

    assert 0 == result.code
    assert "nothing to do" in result.err
    assert before == _credential(config)


def test_new_pair_becomes_current(cli: Cli, host: Path, config: Path) -> None:
    """Another key id becomes CURRENT; the one before is PREVIOUS."""
    cli("credential", "import", "--stdin", stdin=f"{KEY_ID}:{PASSWORD}\n")
    cli("credential", "import", "--stdin", stdin=f"{OTHER_ID}:{EU_PASSWORD}\n")

    credential = _credential(config)
    assert {"CURRENT": 2, "PREVIOUS": 1} == {k.value: v for k, v in credential.labels.items()}
    assert OTHER_ID == credential.current().username


def test_two_regions_of_one_key(cli: Cli, host: Path, config: Path, tmp_path: Path) -> None:
    """Passwords of one key for two hosts are both kept, and a third source adds to them."""
    source = tmp_path / "sasl_passwd"
    source.write_text(
        f"[{US_HOST}]:587 {KEY_ID}:{PASSWORD}\n[{EU_HOST}]:587 {KEY_ID}:{EU_PASSWORD}\n"
    )

    result = cli("credential", "import", "--from", source)

    assert 0 == result.code
    assert {"us-east-1", "eu-west-1"} == set(_current(config).passwords)
    assert "region eu-west-1 is not among the regions of credential ses" in result.err


def test_access_key(cli: Cli, config: Path, tmp_path: Path) -> None:
    """Passwords for every configured region are derived; the secret key is nowhere afterwards."""
    base = tmp_path / "base"
    regions = ("us-east-1", "eu-west-1", "eu-central-1")
    cli("init", *(part for r in regions for part in ("--region", r)), "--base-directory", base)

    result = cli("credential", "import", "--access-key", stdin=f"{KEY_ID}\n{SECRET_KEY}\n")

    assert 0 == result.code, result.err
    expected = {region: derive_smtp_password(Secret(SECRET_KEY), region) for region in regions}
    assert expected == _current(config).passwords
    assert [] == _shown(result, SECRET_KEY, PASSWORD, EU_PASSWORD)
    found = [path for path in tmp_path.rglob("*") if path.is_file() and _holds(path, SECRET_KEY)]
    assert [] == found


def _holds(path: Path, secret: str) -> bool:
    content = path.read_bytes()
    return any(form in content for form in encoded_forms(Secret(secret)).values())


@pytest.mark.parametrize(
    "text",
    [
        f"{KEY_ID}:{SECRET_KEY}\n",
        f"User name,Access key ID,Secret access key\nu,{KEY_ID},{SECRET_KEY}\n",
        f"[default]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET_KEY}\n",
    ],
)
def test_forms_of_an_access_key(cli: Cli, host: Path, config: Path, text: str) -> None:
    """The console's CSV and an AWS profile are understood as well."""
    assert 0 == cli("credential", "import", "--access-key", stdin=text).code
    assert {"us-east-1": Secret(PASSWORD)} == _current(config).passwords


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds 0 access key ids and 0 secret keys"),
        (f"{KEY_ID}\n", "holds 1 access key ids and 0 secret keys"),
        (f"{KEY_ID}\n{PASSWORD}\n", "this is an SES SMTP password, not an IAM secret access key"),
        (f"ASIAIOSFODNN7EXAMPLE\n{SECRET_KEY}\n", "is a temporary access key"),
    ],
)
def test_access_key_that_is_none(cli: Cli, host: Path, text: str, message: str) -> None:
    """What is no access key is refused by name, and never shown."""
    result = cli("credential", "import", "--access-key", stdin=text)

    assert 4 == result.code
    assert message in result.err
    assert [] == _shown(result, SECRET_KEY, PASSWORD)


def test_secret_key_as_the_password(cli: Cli, host: Path) -> None:
    """A raw secret key in the place of the password is named, with the way out."""
    result = cli("credential", "import", "--stdin", stdin=f"{KEY_ID}:{SECRET_KEY}\n")

    assert 4 == result.code
    assert "is the IAM secret access key itself" in result.err
    assert "hint: run it again with --access-key" in result.err
    assert [] == _shown(result, SECRET_KEY)


def test_password_of_the_old_signature(cli: Cli, host: Path) -> None:
    """A version 2 password is refused: SES takes it no more."""
    result = cli("credential", "import", "--stdin", stdin=f"{KEY_ID}:{V2_PASSWORD}\n")

    assert 4 == result.code
    assert "signature version 2" in result.err
    assert [] == _shown(result, V2_PASSWORD)


def test_several_credentials_are_listed(cli: Cli, host: Path, config: Path, tmp_path: Path) -> None:
    """Several key ids are listed with file and line, without passwords; --username chooses."""
    source = tmp_path / "sasl_passwd"
    source.write_text(
        f"[{US_HOST}]:587 {KEY_ID}:{PASSWORD}\n\n[{EU_HOST}]:587 {OTHER_ID}:{EU_PASSWORD}\n"
    )

    listed = cli("credential", "import", "--from", source)
    chosen = cli("credential", "import", "--from", source, "--username", OTHER_ID)
    absent = cli("credential", "import", "--from", source, "--username", "AKIAXXXXXXXXXXXXXXXX")

    assert 2 == listed.code
    assert f"{KEY_ID}  {source}:1" in listed.err
    assert f"{OTHER_ID}  {source}:3" in listed.err
    assert "hint: choose one with --username" in listed.err
    assert [] == _shown(listed, PASSWORD, EU_PASSWORD)
    assert 0 == chosen.code
    assert OTHER_ID == _current(config).username
    assert 4 == absent.code


@pytest.mark.parametrize(
    "text",
    [
        f"[{US_HOST}]:587 {KEY_ID}:{PASSWORD}\n[{US_HOST}]:465 {KEY_ID}:{EU_PASSWORD}\n",
        f"[{US_HOST}]:587 {KEY_ID}:{PASSWORD}\nsmtp.example.org {KEY_ID}:{EU_PASSWORD}\n",
        f"smtp.example.com {KEY_ID}:{PASSWORD}\nsmtp.example.org {KEY_ID}:{EU_PASSWORD}\n",
    ],
)
def test_two_passwords_of_one_key(cli: Cli, host: Path, tmp_path: Path, text: str) -> None:
    """Which of two passwords works is never guessed."""
    source = tmp_path / "sasl_passwd"
    source.write_text(text)

    result = cli("credential", "import", "--from", source)

    assert 4 == result.code
    assert f"{source}, line 2: a second, different password of {KEY_ID}" in result.err


def test_region_of_the_password(cli: Cli, config: Path, tmp_path: Path) -> None:
    """Host first, then --region, then the only configured region, and else a question."""
    regions = ("--region", "us-east-1", "--region", "eu-west-1")
    cli("init", *regions, "--base-directory", tmp_path / "base")
    bare = f"{KEY_ID}:{EU_PASSWORD}\n"
    with_host = f"smtp://{KEY_ID}:{EU_PASSWORD}@{EU_HOST}:587"

    unclear = cli("credential", "import", "--stdin", stdin=bare)
    against = cli("credential", "import", "--stdin", "--region", "us-east-1", stdin=with_host)
    given = cli("credential", "import", "--stdin", "--region", "eu-west-1", stdin=bare)

    assert 2 == unclear.code
    assert "hint: add --region" in unclear.err
    assert 2 == against.code
    assert "the source is for eu-west-1, not for us-east-1" in against.err
    assert 0 == given.code
    assert {"eu-west-1": Secret(EU_PASSWORD)} == _current(config).passwords


@pytest.mark.parametrize("arguments", [(), ("--stdin", "--access-key"), ("--from", "x", "--stdin")])
def test_exactly_one_source(cli: Cli, host: Path, arguments: tuple[str, ...]) -> None:
    """No source, or two, is a usage error."""
    result = cli("credential", "import", *arguments)

    assert 2 == result.code
    assert "exactly one source" in result.err


def test_nothing_in_the_source(cli: Cli, host: Path, tmp_path: Path) -> None:
    """A file without a credential, and one that is not there, are named."""
    source = tmp_path / "empty.conf"
    source.write_text("nothing here\n")

    assert (
        f"there is no SES credential in {source}"
        in cli("credential", "import", "--from", source).err
    )
    assert "cannot read" in cli("credential", "import", "--from", tmp_path / "absent").err


def test_unknown_name(cli: Cli, host: Path) -> None:
    """A name that the settings do not have is refused with those that they have."""
    result = cli("credential", "import", "other", "--stdin", stdin=f"{KEY_ID}:{PASSWORD}\n")

    assert 2 == result.code
    assert "hint: name one of: ses" in result.err


def test_name_is_needed_among_several(cli: Cli, config: Path, host: Path) -> None:
    """With two credentials in the settings one must be named."""
    config.write_text(config.read_text() + '\n[credentials.two]\nregions = ["us-east-1"]\n')

    result = cli("credential", "import", "--stdin", stdin=f"{KEY_ID}:{PASSWORD}\n")

    assert 2 == result.code
    assert "hint: name one of: ses, two" in result.err


def test_damaged_vault_is_not_written(cli: Cli, host: Path) -> None:
    """An import into a vault that was changed by somebody is refused."""
    vault = host / "vault" / "vault"
    vault.write_bytes(vault.read_bytes()[:-5] + b"xxxx\n")

    assert 4 == cli("credential", "import", "--stdin", stdin=f"{KEY_ID}:{PASSWORD}\n").code


def _openssl(plaintext: str, *options: str) -> str:
    completed = subprocess.run(
        ["openssl", "enc", "-aes-256-cbc", "-a", "-A", *options],
        input=plaintext,
        capture_output=True,
        text=True,
        check=True,
    )
    return completed.stdout


@pytest.mark.parametrize(
    "options",
    [
        ("-k", "secret-key"),
        ("-k", "secret-key", "-md", "md5"),
        ("-k", "secret-key", "-pbkdf2"),
        ("-K", b"secret-key".hex().ljust(64, "0"), "-iv", "0" * 32),
    ],
)
def test_encrypted_by_a_script(
    cli: Cli, host: Path, config: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Files that openssl, or PHP in the same way, encrypted are opened with the key."""
    source = tmp_path / "credential.enc"
    source.write_text(_openssl(f"{KEY_ID}:{PASSWORD}", *options))

    result = cli("credential", "import", "--openssl-enc", source, stdin="secret-key\n")

    assert 0 == result.code, result.err
    assert (KEY_ID, {"us-east-1": Secret(PASSWORD)}) == (
        _current(config).username,
        _current(config).passwords,
    )
    assert [] == _shown(result, PASSWORD)


def test_encrypted_user_and_password_apart(
    cli: Cli, host: Path, config: Path, tmp_path: Path
) -> None:
    """User and password in two files, the key in a third, the IV as the script has it."""
    iv = ("-iv", base64.b16encode(b"0123456789abcdef").decode())
    key = ("-K", b"secret-key".hex().ljust(64, "0"))
    (tmp_path / "user").write_text(_openssl(KEY_ID, *key, *iv))
    (tmp_path / "pass").write_text(_openssl(PASSWORD, *key, *iv))
    (tmp_path / "key").write_text("secret-key\n")
    options = ("--key-file", tmp_path / "key", "--iv", "0123456789abcdef")

    both = cli(
        "credential", "import", "--php-openssl", tmp_path / "user", "--php-openssl",
        tmp_path / "pass", *options,
    )  # fmt: skip
    half = cli("credential", "import", "--php-openssl", tmp_path / "pass", *options)
    named = cli(
        "credential", "import", "--php-openssl", tmp_path / "pass", "--username", KEY_ID, *options
    )

    assert 0 == both.code, both.err
    assert Secret(PASSWORD) == _current(config).passwords["us-east-1"]
    assert 4 == half.code
    assert "hold 0 users and 1 passwords" in half.err
    assert 0 == named.code


def test_encrypted_with_another_key(cli: Cli, host: Path, tmp_path: Path) -> None:
    """A wrong key is an error, never a wrong credential."""
    source = tmp_path / "credential.enc"
    source.write_text(_openssl(f"{KEY_ID}:{PASSWORD}", "-k", "secret-key"))

    result = cli("credential", "import", "--openssl-enc", source, stdin="another\n")

    assert 4 == result.code
    assert "hint: check the key" in result.err


def test_encrypted_password_of_the_old_signature(cli: Cli, host: Path, tmp_path: Path) -> None:
    """A version 2 password is refused from an encrypted file as well."""
    source = tmp_path / "credential.enc"
    source.write_text(_openssl(f"{KEY_ID}:{V2_PASSWORD}", "-k", "secret-key"))

    result = cli("credential", "import", "--openssl-enc", source, stdin="secret-key\n")

    assert 4 == result.code
    assert "signature version 2" in result.err


def test_source_behind_a_link(cli: Cli, host: Path, config: Path, tmp_path: Path) -> None:
    """A symbolic link that the user names is followed."""
    (tmp_path / "real").write_text(f"{KEY_ID}:{PASSWORD}\n")
    (tmp_path / "link").symlink_to(tmp_path / "real")

    assert 0 == cli("credential", "import", "--from", tmp_path / "link").code
    assert KEY_ID == _current(config).username


def test_access_key_on_a_terminal(host: Path, config: Path) -> None:
    """A terminal is asked for both parts, and the secret key is not echoed."""
    shown = run_on_a_terminal(
        "credential",
        "import",
        "--access-key",
        dialogue=[("Access key id: ", f"{KEY_ID}\n"), ("Secret access key: ", f"{SECRET_KEY}\n")],
    )

    assert KEY_ID == _current(config).username
    assert SECRET_KEY not in shown


@pytest.mark.parametrize("key_id", ["nonsense", PASSWORD])
def test_key_id_on_a_terminal_that_is_none(host: Path, key_id: str) -> None:
    """What is typed in place of the key id is refused and not repeated in the error."""
    shown = run_on_a_terminal(
        "credential",
        "import",
        "--access-key",
        dialogue=[("Access key id: ", f"{key_id}\n"), ("Secret access key: ", f"{SECRET_KEY}\n")],
    )

    assert "the access key id does not have the form of one" in shown
    assert 1 == shown.count(key_id)


def test_paste_on_a_terminal(host: Path, config: Path) -> None:
    """A terminal is told what to paste and how to end."""
    run_on_a_terminal(
        "credential",
        "import",
        "--stdin",
        dialogue=[("then press Ctrl-D", f"{KEY_ID}:{PASSWORD}\n\x04")],
    )

    assert KEY_ID == _current(config).username
