"""Relay mode of Exim's text: no credential and no AUTH, reversible, from any state."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesguard.config.load import parse_settings
from sesguard.config.schema import Settings
from sesguard.deploy.exim.relayed import without_relay
from sesguard.deploy.exim.rewire import AUTHENTICATOR, Rewired, Wiring, rewire
from sesguard.deploy.exim.submission import relay_endpoint, require_app
from sesguard.deploy.exim.syntax import Block, blocks
from sesguard.errors import SettingsError
from sesguard.sandbox.private_exim import CLIENT_SEND
from sesguard.system.privileges import User

USER = "AKIAIOSFODNN7EXAMPLE"
PASSWORD = "BLBM/9hSUELfq8Gw+rU1YcBjkOxGbhT2XG763xVLGWL9"
CONF = Path("/etc/exim.conf")
SOCKET = Path("/run/sesguard/exim.sock")
LOOKUP = Wiring(SOCKET.parent, SOCKET)
RELAY = Wiring(SOCKET.parent, SOCKET, relay="127.0.0.1::2525")
EXIM = User("Debian-exim", 102, 105)

ROUTE = """\
begin routers
ses:
  driver = manualroute
  route_list = * email-smtp.us-east-1.amazonaws.com::465 byname
  fallback_hosts = email-smtp.us-west-2.amazonaws.com
  transport = ses_smtp
direct:
  driver = dnslookup
  transport = remote_smtp
begin transports
ses_smtp:
  driver = smtp
  # The key of the domain.
  dkim_domain = example.com
  dkim_selector = mail
  protocol = smtps
  interface = 203.0.113.5
  hosts_require_auth = \\
    *
  max_rcpt = 20
remote_smtp:
  driver = smtp
  hosts_require_tls = *
begin authenticators
"""


def one(text: str, wiring: Wiring) -> Rewired:
    """Rewire a configuration of one file."""
    return rewire({CONF: text}, wiring)


def changed(text: str, wiring: Wiring) -> str:
    """The new text of a configuration of one file."""
    return one(text, wiring).texts[CONF]


def instances(text: str) -> dict[str, Block]:
    """The driver instances of a text by name."""
    return {block.name: block for block in blocks(text.splitlines(keepends=True))}


def plaintext(form: str = "login") -> str:
    """A configuration that carries the credential."""
    return ROUTE + CLIENT_SEND[form].format(user=USER, password=PASSWORD)


@pytest.mark.parametrize("form", sorted(CLIENT_SEND))
def test_relay_mode_holds_no_credential_and_asks_for_none(form: str) -> None:
    """No password, no authenticator with a client side, no AUTH or TLS towards the loopback."""
    rewired = one(plaintext(form), RELAY)
    text = rewired.texts[CONF]
    found = instances(text)

    assert rewired.in_place
    assert PASSWORD not in text
    assert USER not in text
    assert AUTHENTICATOR not in found
    assert [] == found["ses_login"].values("client_send")
    transport = found["ses_smtp"]
    assert ["127.0.0.1::2525"] == transport.values("hosts")
    assert ["true"] == transport.values("hosts_override")
    assert ["true"] == transport.values("allow_localhost")
    assert ["*"] == transport.values("hosts_avoid_tls")
    for name in ("hosts_require_auth", "hosts_require_tls", "protocol", "interface"):
        assert [] == transport.values(name)


def test_what_fits_is_kept() -> None:
    """DKIM options, comments, limits, the router's route and other transports stay."""
    text = changed(plaintext(), RELAY)
    found = instances(text)

    assert "example.com" == found["ses_smtp"].value("dkim_domain")
    assert "mail" == found["ses_smtp"].value("dkim_selector")
    assert "20" == found["ses_smtp"].value("max_rcpt")
    assert "  # The key of the domain.\n" in text
    assert "email-smtp.us-east-1.amazonaws.com" in (found["ses"].value("route_list") or "")
    assert "*" == found["remote_smtp"].value("hosts_require_tls")


def test_fallback_hosts_of_the_router_are_set_aside() -> None:
    """Exim would send there without AUTH while the relay is down, and SES's 530 bounces mail."""
    assert [] == instances(changed(plaintext(), RELAY))["ses"].values("fallback_hosts")


@pytest.mark.parametrize("form", sorted(CLIENT_SEND))
def test_modes_convert_into_each_other(form: str) -> None:
    """From plaintext, lookup or relay: each mode's text is the same, and a fixed point."""
    lookup = changed(plaintext(form), LOOKUP)
    relay = changed(plaintext(form), RELAY)

    assert relay == changed(lookup, RELAY)
    assert relay == changed(relay, RELAY)
    assert lookup == changed(relay, LOOKUP)
    assert lookup == without_relay(relay)


def test_another_port_of_the_relay_is_brought_up_to_date() -> None:
    """After a change of relay.listen the next apply follows it."""
    old = changed(plaintext(), RELAY)
    moved = Wiring(SOCKET.parent, SOCKET, relay="127.0.0.1::2526")

    assert changed(plaintext(), moved) == changed(old, moved)


def test_transport_with_its_own_hosts_comes_back() -> None:
    """A transport that names SES itself is found again in relay mode."""
    text = (
        "begin transports\nses_smtp:\n  driver = smtp\n"
        "  hosts = email-smtp.us-east-1.amazonaws.com\nbegin authenticators\n"
    ) + CLIENT_SEND["plain"].format(user=USER, password=PASSWORD)
    relay = changed(text, RELAY)

    assert ["127.0.0.1::2525"] == instances(relay)["ses_smtp"].values("hosts")
    assert ("ses_smtp",) == one(relay, RELAY).transports
    assert changed(text, LOOKUP) == changed(relay, LOOKUP)


def test_conditional_options_are_set_aside_where_they_stand() -> None:
    """An option between .ifdef and .endif is a comment there, and every driver line is served."""
    text = plaintext().replace(
        "  driver = smtp\n  # The key",
        ".ifdef A\n  driver = smtp\n  interface = 203.0.113.6\n.else\n  driver = smtp\n.endif\n"
        "  # The key",
    )
    relay = changed(text, RELAY)

    assert 2 == relay.count("hosts = 127.0.0.1::2525")
    assert [] == instances(relay)["ses_smtp"].values("interface")
    assert changed(text, LOOKUP) == changed(relay, LOOKUP)


def test_line_that_somebody_added_to_ours_stays() -> None:
    """Going back takes our own lines only, also when one of them was deleted by hand."""
    relay = changed(plaintext(), RELAY)
    edited = relay.replace("  hosts_override = true\n", "").replace(
        "  allow_localhost = true\n", "  allow_localhost = true\n  delay_after_cutoff = false\n"
    )

    back = without_relay(edited)

    assert "  delay_after_cutoff = false\n" in back
    assert "127.0.0.1" not in without_relay(relay)


@given(st.text(st.characters(codec="utf-8"), max_size=200))
def test_text_without_relay_mode_is_left_alone(text: str) -> None:
    """Whatever the text is: nothing is taken back that was not done."""
    assert text == without_relay(text)


def settings(text: str) -> Settings:
    """Settings from a text."""
    return parse_settings(text.encode(), Path("/sesguard.toml"))


@pytest.mark.parametrize(
    ("listen", "hosts"),
    [
        ('["127.0.0.1:2525", "[::1]:2525"]', "127.0.0.1::2525"),
        ('["192.0.2.1:465", "127.0.0.7:2526"]', "127.0.0.7::2526"),
        ('["[::1]:2525"]', "<; [::1]:2525"),
    ],
)
def test_first_loopback_address_is_taken(listen: str, hosts: str) -> None:
    """Exim's list syntax: a doubled colon before a port, another separator for IPv6."""
    assert hosts == relay_endpoint(settings(f"[relay]\nlisten = {listen}\n")).hosts


@pytest.mark.parametrize("listen", ["[]", '["192.0.2.1:465"]'])
def test_relay_without_a_loopback_address_is_refused(listen: str) -> None:
    """Exim is known by its uid, and the kernel tells that on loopback only."""
    with pytest.raises(SettingsError, match="no loopback address"):
        relay_endpoint(settings(f"[relay]\nlisten = {listen}\n"))


def test_relay_address_is_understood_as_the_daemon_does() -> None:
    """What the daemon would refuse is not given to Exim."""
    with pytest.raises(SettingsError, match="not an address and a port"):
        relay_endpoint(settings('[relay]\nlisten = ["::1:2525"]\n'))


@pytest.mark.parametrize(
    "condition",
    [
        'users = ["Debian-exim"]',
        'users = ["102"]',
        'groups = ["105"]',
        'users = ["www-data", "Debian-exim"]\ngroups = ["105"]',
    ],
)
def test_app_of_the_exim_user_is_found(condition: str) -> None:
    """By name or number of the user, or by its group."""
    assert "exim" == require_app(settings(f"[apps.exim]\n{condition}\n"), EXIM)


@pytest.mark.parametrize(
    "table",
    [
        "",
        "[apps.shop]\n",
        '[apps.shop]\nusers = ["www-data"]\n',
        '[apps.all]\nusers = ["*"]\n',
        '[apps.exim]\nusers = ["Debian-exim"]\nrequire_token = true\n',
        '[apps.exim]\nusers = ["Debian-exim"]\ngroups = ["4711"]\n',
    ],
)
def test_missing_app_is_refused_with_the_table_to_add(table: str) -> None:
    """No table, another user's, a pattern, a token that Exim has not: the hint shows a table."""
    with pytest.raises(SettingsError, match="no app of the settings") as caught:
        require_app(settings(table), EXIM)

    assert '[apps.exim]\nusers = ["Debian-exim"]' in str(caught.value.hint)
    assert 'delivery = "pass"' in str(caught.value.hint)
