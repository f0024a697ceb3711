"""SES endpoints and regions: tests of `sesguard.core.endpoints`."""

import pytest

from sesguard.core.endpoints import (
    REGIONS_WITHOUT_SMTP,
    SMTP_PORTS,
    SMTP_REGIONS,
    STARTTLS_PORTS,
    TLS_WRAPPER_PORTS,
    Endpoint,
    is_ses_host,
    region_note,
    region_of_host,
    require_region,
    smtp_host,
)
from sesguard.errors import CredentialError


@pytest.mark.parametrize("region", sorted(SMTP_REGIONS | REGIONS_WITHOUT_SMTP))
def test_host_and_region_are_two_names_of_one_thing(region: str) -> None:
    """Of every region in the tables."""
    assert region == region_of_host(smtp_host(region)) == require_region(region)
    assert is_ses_host(smtp_host(region))


def test_a_chinese_region_has_another_domain() -> None:
    """And its host is recognised as well."""
    assert "email-smtp.cn-north-1.amazonaws.com.cn" == smtp_host("cn-north-1")
    assert "cn-north-1" == region_of_host(smtp_host("cn-north-1"))


def test_case_and_a_final_dot_do_not_count_in_a_host_name() -> None:
    """As in the DNS."""
    assert "us-east-1" == region_of_host("EMAIL-SMTP.us-east-1.AMAZONAWS.com.")


@pytest.mark.parametrize("host", ["localhost", "", "smtp.example.org", "email-smtp.amazonaws.com"])
def test_another_host_has_no_region(host: str) -> None:
    """It may still be a sandbox or a private name."""
    assert (None, False) == (region_of_host(host), is_ses_host(host))


def test_a_region_that_is_not_in_the_table_is_noted_and_not_refused() -> None:
    """The table is advice: AWS adds regions."""
    assert region_note("us-east-1") is None
    assert "newer than this release" in (region_note("mx-central-1") or "")
    assert "no SES SMTP endpoint" in (region_note("af-south-1") or "")


@pytest.mark.parametrize(
    "text", ["", "us-east", "us-east-1a", "US-EAST-1", "us-east-1 ", "us_east_1"]
)
def test_what_has_not_the_form_of_a_region_is_refused(text: str) -> None:
    """The hint shows what one looks like."""
    with pytest.raises(CredentialError, match="is not an AWS region name") as caught:
        smtp_host(text)
    assert "use a name such as us-east-1 or eu-central-1" == caught.value.hint


def test_the_port_says_how_tls_starts() -> None:
    """465 and 2465 begin with it, the others use STARTTLS."""
    begins = {port for port in SMTP_PORTS if Endpoint("localhost", port).starts_with_tls}
    assert set(TLS_WRAPPER_PORTS) == begins
    assert set(STARTTLS_PORTS) == set(SMTP_PORTS) - begins
    assert not Endpoint("localhost").starts_with_tls
