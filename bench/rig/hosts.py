"""
What every host with a relay has: settings, and a key in its vault.

The hosts of the benchmarks and those of the tests are made of it. It stands here because benchmarks
run by themselves, without what tests are built from.
"""

import datetime as dt
from pathlib import Path
from typing import Final

from sesguard.config.schema import Settings
from sesguard.core.credential import Credential, CredentialVersion
from sesguard.core.secret import Secret
from sesguard.system.privileges import current_user, is_root
from sesguard.vault.opening import open_vault

DAEMON_USER: Final = "nobody"
"""Whom the daemon becomes where root starts it; otherwise it stays who we are."""

_SETTINGS: Final = """\
state_directory = "{directory}/state"

[credentials.ses]
regions = ["{region}"]
host = "{host}"
port = {port}
ca_file = "{ca_file}"
{credential}
[vault]
directory = "{directory}/state/vault"

[vault.keyfile]
path = "{directory}/state/vault.key"

[daemon]
user = "{user}"
runtime_directory = "{directory}/run"

[lookup.exim]
enabled = false

[lookup.postfix]
enabled = false

[relay]
listen = [{listen}]
spool_directory = "{directory}/spool"
{relay}
{apps}"""


def relay_settings(
    directory: Path,
    upstream: tuple[str, int],
    ca_file: Path,
    *,
    listen: str,
    apps: str,
    relay: str = "",
    credential: str = "",
    region: str = "us-east-1",
) -> str:
    """
    The settings of a host that does nothing but relay, in TOML.

    Args:
        directory: Everything of the host is below it.
        upstream: Host and port that stand in for SES; STARTTLS.
        ca_file: Who has signed its certificate.
        listen: Addresses to listen on, as they stand in a list of TOML.
        apps: Tables of apps.
        relay: More keys of the table ``[relay]``.
        credential: More keys of the credential's table.
        region: The region of the credential.
    """
    return _SETTINGS.format(
        directory=directory,
        region=region,
        host=upstream[0],
        port=upstream[1],
        ca_file=ca_file,
        credential=credential,
        user=DAEMON_USER if is_root() else current_user().name,
        listen=listen,
        relay=relay,
        apps=apps,
    )


def put_current(
    settings: Settings,
    username: str,
    password: Secret,
    *,
    region: str = "us-east-1",
    exposed: bool = False,
) -> None:
    """Make a user and password the CURRENT version of the credential ``ses``."""

    def change(credential: Credential) -> Credential:
        version = CredentialVersion(
            number=credential.next_number,
            username=username,
            passwords={region: password},
            created_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            origin="imported by a rig",
            exposed=exposed,
        )
        return credential.add_pending(version).promote()

    open_vault(settings).update("ses", change)
