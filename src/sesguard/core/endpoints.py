"""
SES SMTP endpoints: host names, ports, regions.

The table is advice, not law: AWS adds regions, and its own lists contradict each other (eu-south-1
is in one and missing in another). A region that has the form of one is never refused; `region_note`
says what the table knows about it.

Sources: docs.aws.amazon.com/ses/latest/dg/smtp-connect.html and .../general/latest/gr/ses.html.
"""

from dataclasses import dataclass
from typing import Final

from sesguard.core.shapes import REGION, SES_HOST
from sesguard.errors import CredentialError

SMTP_REGIONS: Final = frozenset(
    {
        "ap-northeast-1",
        "ap-northeast-2",
        "ap-northeast-3",
        "ap-south-1",
        "ap-southeast-1",
        "ap-southeast-2",
        "ca-central-1",
        "eu-central-1",
        "eu-north-1",
        "eu-south-1",
        "eu-west-1",
        "eu-west-2",
        "eu-west-3",
        "sa-east-1",
        "us-east-1",
        "us-east-2",
        "us-gov-east-1",
        "us-gov-west-1",
        "us-west-1",
        "us-west-2",
    }
)
"""Regions for which at least one AWS list names an SMTP endpoint."""

REGIONS_WITHOUT_SMTP: Final = frozenset(
    {"af-south-1", "ap-southeast-3", "il-central-1", "me-south-1"}
)
"""Regions for which AWS says that there is no SMTP endpoint."""

STARTTLS_PORTS: Final = (587, 2587, 25)
TLS_WRAPPER_PORTS: Final = (465, 2465)
SMTP_PORTS: Final = (*STARTTLS_PORTS, *TLS_WRAPPER_PORTS)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An SES SMTP endpoint: DNS name and TCP port."""

    host: str
    port: int = 587

    @property
    def starts_with_tls(self) -> bool:
        """Whether TLS begins with the connection (no STARTTLS command)."""
        return self.port in TLS_WRAPPER_PORTS


def require_region(region: str) -> str:
    """
    Give `region` back when it has the form of an AWS region name.

    Raises:
        CredentialError: It has not; a host name in its place is named as such.
    """
    if REGION.fullmatch(region):
        return region
    found = region_of_host(region)
    if found is not None:
        raise CredentialError(
            "{region!r} is an SES host name, not a region",
            hint="use {found}",
            region=region,
            found=found,
        )
    raise CredentialError(
        "{region!r} is not an AWS region name",
        hint="use a name such as us-east-1 or eu-central-1",
        region=region,
    )


def region_note(region: str) -> str | None:
    """Say why SMTP may not work in `region`, or None where the table knows it. Never refuses."""
    if region in SMTP_REGIONS:
        return None
    if region in REGIONS_WITHOUT_SMTP:
        return "AWS documents no SES SMTP endpoint in this region"
    return "this region is not in the table of SES SMTP regions; it may be newer than this release"


def smtp_host(region: str) -> str:
    """The public SMTP host name of `region`."""
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return f"email-smtp.{require_region(region)}.{domain}"


def is_ses_host(host: str) -> bool:
    """Whether `host` is an SES SMTP host name: public, FIPS or of a VPC endpoint."""
    return SES_HOST.fullmatch(host.rstrip(".")) is not None


def region_of_host(host: str) -> str | None:
    """The region named in an SES SMTP host name, or None."""
    match = SES_HOST.fullmatch(host.rstrip("."))
    return match["region"].lower() if match else None
