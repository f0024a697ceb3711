"""
``sesguard credential import``: a credential that lies in plaintext goes into the vault.

Exactly one source is read; a source file is never changed (``sesguard target apply`` wipes). What
was found becomes the CURRENT version in one durable step, marked as exposed: whoever could read the
source has a copy, so it should be rotated. Importing what is CURRENT already changes nothing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from sesguard.cli import params
from sesguard.cli.context import App, pass_app
from sesguard.cli.credential_import_sources import (
    Plaintext,
    from_access_key,
    from_encrypted,
    from_file,
    from_stdin,
)
from sesguard.cli.credential_import_store import Stored, store
from sesguard.cli.i18n import _
from sesguard.config.schema import CredentialSettings
from sesguard.core.endpoints import region_note
from sesguard.core.secret import Secret
from sesguard.errors import UsageError


@click.command(
    name="import",
    help=_(
        "Put a credential that lies in plaintext into the vault, as NAME of the settings file."
        " Give exactly one source. Files are only read."
    ),
)
@click.argument("name", required=False, metavar=_("[NAME]"))
@click.option(
    "--from",
    "file",
    type=params.FILE,
    metavar=_("FILE"),
    help=_(
        "Source: any file with the credential in it: Exim or Postfix configuration, passwd.client,"
        " sasl_passwd, .env, msmtprc, PHP."
    ),
)
@click.option("--stdin", is_flag=True, help=_("Source: standard input, USER:PASSWORD or a DSN."))
@click.option(
    "--access-key",
    is_flag=True,
    help=_(
        "Source: an IAM access key, asked for or from standard input. The SMTP passwords of all"
        " configured regions are derived from it, and the secret key is dropped."
    ),
)
@click.option(
    "--php-openssl",
    "--openssl-enc",
    "encrypted",
    type=params.FILE,
    multiple=True,
    metavar=_("FILE"),
    help=_(
        "Source: a file encrypted by PHP's openssl_encrypt or by openssl enc (AES-256-CBC). Give it"
        " twice when user and password are in two files. The key is asked for."
    ),
)
@click.option(
    "--key-file", type=params.FILE, metavar=_("FILE"), help=_("File with the key of --php-openssl.")
)
@click.option("--iv", metavar=_("TEXT"), help=_("IV of --php-openssl, as the script has it."))
@click.option(
    "--username", metavar=_("KEY-ID"), help=_("Which one, where a source holds several (AKIA...).")
)
@click.option(
    "--region",
    type=params.region,
    metavar=_("REGION"),
    help=_("AWS region that the password is for."),
)
@pass_app
def command(
    app: App,
    name: str | None,
    file: Path | None,
    stdin: bool,
    access_key: bool,
    encrypted: Sequence[Path],
    key_file: Path | None,
    iv: str | None,
    username: str | None,
    region: str | None,
) -> None:
    """Read the source, then commit."""
    if [file is not None, stdin, access_key, bool(encrypted)].count(True) != 1:
        raise UsageError(
            "exactly one source must be given",
            hint="use --from FILE, --stdin, --access-key or --php-openssl FILE",
        )
    name, settings = app.credential_settings(name)
    if access_key:
        found = from_access_key(app.output, settings.regions)
    elif encrypted:
        found = from_encrypted(app.output, encrypted, key_file, iv, username)
    elif file is not None:
        found = from_file(app.output, file, username)
    else:
        found = from_stdin(app.output, username)
    passwords = _place(found, name, settings, region)
    _warn_of_regions(app, name, settings, passwords)
    stored = store(app.vault(), name, found.username, passwords, found.origin)
    _report(app, name, stored)


def _place(
    found: Plaintext, name: str, settings: CredentialSettings, region: str | None
) -> dict[str, Secret]:
    """Give every password its region."""
    placed = {known: password for known, password in found.passwords.items() if known is not None}
    if None not in found.passwords:
        if region is not None and region not in placed:
            raise UsageError(
                "the source is for {regions}, not for {region}",
                hint="leave --region out",
                regions=", ".join(placed),
                region=region,
            )
        return placed
    if region is None and len(settings.regions) == 1:
        region = settings.regions[0]
    if region is None:
        raise UsageError(
            "the source does not say which region the password is for, and credential {name} has"
            " {regions}",
            hint="add --region: an SMTP password works in one region only",
            name=name,
            regions=", ".join(settings.regions),
        )
    return {region: found.passwords[None], **placed}


def _warn_of_regions(
    app: App, name: str, settings: CredentialSettings, passwords: Mapping[str, Secret]
) -> None:
    for region in passwords:
        if region not in settings.regions:
            warning = _(
                "region {region} is not among the regions of credential {name} in {path};"
                " add it there, or nobody is given this password"
            )
            app.output.warn(warning.format(region=region, name=name, path=app.config))
        note = region_note(region)
        if note is not None:
            app.output.warn(f"{region}: {_(note)}")


def _report(app: App, name: str, stored: Stored) -> None:
    version = stored.version
    what = _("credential {name}: version {number} is CURRENT, key {username}, {regions}")
    if not stored.is_new:
        what = _("nothing to do: {name} is at version {number} with key {username}, {regions}")
    app.output.ok(
        what.format(
            name=name,
            number=version.number,
            username=version.username,
            regions=" ".join(version.passwords),
        )
    )
    if version.exposed:
        app.output.warn(
            _(
                "this credential was exposed: it lay in plaintext, and whoever could read it may"
                " have a copy. Rotate it once the host no longer needs the plaintext"
            )
        )
    if stored.is_new:
        app.output.note(_("Next: sesguard target plan"))
