"""The change of Exim's text: every form, idempotent, nothing else touched, refused when unsafe."""

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesguard.deploy.exim.rewire import AUTHENTICATOR, Rewired, Wiring, rewire
from sesguard.deploy.exim.syntax import blocks
from sesguard.errors import DeployError
from sesguard.sandbox.private_exim import BODY, CLIENT_SEND

USER = "AKIAIOSFODNN7EXAMPLE"
PASSWORD = "BLBM/9hSUELfq8Gw+rU1YcBjkOxGbhT2XG763xVLGWL9"
CONF = Path("/etc/exim.conf")
WIRING = Wiring(Path("/run/sesguard"), Path("/run/sesguard/exim.sock"))

ROUTE = """\
begin routers
ses:
  driver = manualroute
  route_list = * email-smtp.us-east-1.amazonaws.com::587 byname
  transport = ses_smtp
direct:
  driver = dnslookup
  transport = remote_smtp
begin transports
ses_smtp:
  driver = smtp
  hosts_try_auth = *
remote_smtp:
  driver = smtp
  hosts_try_auth = other.example.net
begin authenticators
"""


def one(text: str, wiring: Wiring = WIRING) -> Rewired:
    """Rewire a configuration of one file."""
    return rewire({CONF: text}, wiring)


def authenticator(form: str) -> str:
    """An authenticator with the credential in one of its forms."""
    return CLIENT_SEND[form].format(user=USER, password=PASSWORD)


@pytest.mark.parametrize("form", sorted(CLIENT_SEND))
def test_every_form_of_client_send_is_replaced(form: str) -> None:
    """The credential is gone, one authenticator asks the daemon, the transport requires AUTH."""
    rewired = one(ROUTE + authenticator(form))
    text = rewired.texts[CONF]

    assert rewired.credential_found
    assert rewired.in_place
    assert ("ses_smtp",) == rewired.transports
    assert PASSWORD not in text
    assert USER not in text
    found = {block.name: block for block in blocks(text.splitlines(keepends=True))}
    assert WIRING.client_send == found[AUTHENTICATOR].value("client_send")
    assert "hide client_send" in text
    assert [] == found["ses_login"].values("client_send")
    transport = found["ses_smtp"]
    assert ["*"] == transport.values("hosts_require_auth")
    assert ["*"] == transport.values("hosts_require_tls")
    assert ["*"] == transport.values("tls_verify_hosts")
    assert ["*"] == transport.values("tls_verify_cert_hostnames")
    assert ["system"] == transport.values("tls_verify_certificates")
    assert [] == transport.values("hosts_try_auth")
    assert ["other.example.net"] == found["remote_smtp"].values("hosts_try_auth")


@pytest.mark.parametrize("form", sorted(CLIENT_SEND))
def test_applying_twice_is_applying_once(form: str) -> None:
    """The changed text is a fixed point."""
    once = one(ROUTE + authenticator(form))
    twice = rewire(once.texts, WIRING)

    assert once.texts == twice.texts
    assert not twice.credential_found
    assert twice.in_place


def test_credential_in_macros_is_found() -> None:
    """A user and password that are macros count as a credential in the authenticator."""
    text = (
        f"SES_USER = {USER}\nSES_PASS = {PASSWORD}\n"
        + ROUTE
        + "ses:\n  driver = plaintext\n  public_name = LOGIN\n"
        + "  client_send = : SES_USER : SES_PASS\n"
    )

    rewired = one(text)

    assert rewired.credential_found
    assert "client_send = : SES_USER" not in rewired.texts[CONF]


def test_login_with_carets_is_found() -> None:
    """The form that a published installer writes: LOGIN, carets, no indentation."""
    block = authenticator("unindented").replace("PLAIN", "LOGIN")

    assert one(ROUTE + block).credential_found


def test_stock_lookup_without_a_route_to_ses_is_left_alone() -> None:
    """Debian's authenticators look into passwd.client on every host; that alone means nothing."""
    text = (
        "plain:\n  driver = plaintext\n  client_send = ^${lookup{$host}lsearch{/x/passwd.client}}\n"
    )

    rewired = rewire({CONF: text}, WIRING, carries_credential=lambda v: "passwd.client" in v)

    assert {CONF: text} == rewired.texts
    assert not rewired.credential_found


def test_two_authenticators_become_one() -> None:
    """LOGIN and PLAIN with the same credential are replaced by a single one."""
    second = authenticator("plain").replace("ses_login", "ses_plain")
    text = one(ROUTE + authenticator("login") + "\n" + second).texts[CONF]

    assert 1 == text.count(f"{AUTHENTICATOR}:")
    assert 1 == text.count("client_send")


def test_another_providers_authenticator_is_left_alone() -> None:
    """A client_send without an SES credential stays as it is."""
    other = "other:\n  driver = plaintext\n  public_name = LOGIN\n  client_send = : apikey : SG.x\n"
    text = one(ROUTE + other + authenticator("plain")).texts[CONF]

    assert other in text


def test_server_side_of_an_authenticator_is_kept() -> None:
    """An authenticator that also serves clients of the host keeps doing so."""
    both = authenticator("login") + "  server_prompts = Username:: : Password::\n"

    text = one(ROUTE + both).texts[CONF]

    assert "server_prompts = Username:: : Password::" in text
    assert "public_name = LOGIN" in text


def test_private_host_and_ca_are_taken_from_the_settings() -> None:
    """A host whose name is not SES's, and a CA file, come from the wiring."""
    wiring = Wiring(
        Path("/run/s"), Path("/run/s/exim.sock"), Path("/etc/ca.pem"), frozenset({"mail.internal"})
    )
    text = ROUTE.replace("email-smtp.us-east-1.amazonaws.com", "Mail.Internal")

    rewired = one(text + authenticator("plain"), wiring)

    assert ("ses_smtp",) == rewired.transports
    assert "  tls_verify_certificates = /etc/ca.pem\n" in rewired.texts[CONF]


@pytest.mark.parametrize(
    "route",
    [
        "route_data = email-smtp.us-east-1.amazonaws.com",
        'route_list = "* email-smtp.us-east-1.amazonaws.com::2587"',
        (
            "route_list = *.example.org email-smtp.eu-west-1.amazonaws.com byname ; "
            "* email-smtp.us-east-1.amazonaws.com::587 byname"
        ),
        "route_list = * SMARTHOST",
        "route_list = * vpce-0a1-b2.email-smtp.us-east-1.vpce.amazonaws.com",
        "route_list = \\\n    * \\\n    email-smtp.us-east-1.amazonaws.com::587",
    ],
)
def test_routes_to_ses_are_recognised(route: str) -> None:
    """Route lists, route data, several rules, macros, VPC endpoints and continued lines."""
    text = "SMARTHOST = email-smtp.us-east-1.amazonaws.com::587\n" + ROUTE.replace(
        "route_list = * email-smtp.us-east-1.amazonaws.com::587 byname", route
    )

    assert ("ses_smtp",) == one(text + authenticator("plain")).transports


def test_transport_with_its_own_hosts_is_recognised() -> None:
    """An smtp transport that names SES in its hosts option counts."""
    text = (
        "begin transports\nses:\n  driver = smtp\n"
        "  hosts = email-smtp.us-east-1.amazonaws.com\nbegin authenticators\n"
    )

    assert ("ses",) == one(text + authenticator("plain")).transports


def test_shared_transport_is_refused() -> None:
    """A transport that also delivers elsewhere would lose that mail if it required SES's AUTH."""
    text = ROUTE.replace("transport = remote_smtp", "transport = ses_smtp")

    with pytest.raises(DeployError, match="by router direct, elsewhere as well"):
        one(text + authenticator("plain"))


def test_mixed_hosts_are_not_taken_for_ses() -> None:
    """A route with a host of somebody else is no route to SES."""
    text = ROUTE.replace("::587 byname", "::587:backup.example.net byname")

    assert () == one(text + authenticator("plain")).transports


def test_conditional_options_are_made_unconditional() -> None:
    """What stands between .ifdef and .endif is taken out, and the option is set for good."""
    text = ROUTE.replace(
        "  hosts_try_auth = *\n",
        ".ifdef STRICT\n  hosts_require_tls = *\n.endif\n  hosts_try_auth = *\n",
    )

    rewired = one(text + authenticator("plain")).texts[CONF]

    assert 1 == rewired.count("hosts_require_tls")
    assert ".ifdef STRICT\n.endif\n" in rewired
    assert rewired == one(rewired).texts[CONF]


def test_every_branch_with_a_driver_gets_the_requirements() -> None:
    """A transport whose driver line stands in both branches of a conditional."""
    text = ROUTE.replace(
        "ses_smtp:\n  driver = smtp\n",
        "ses_smtp:\n.ifdef TESTING\n  driver = smtp\n.else\n  driver = smtp\n.endif\n",
    )

    rewired = one(text + authenticator("plain")).texts[CONF]

    assert 2 == rewired.count("  driver = smtp\n  hosts_require_auth = *\n")


def test_authenticator_is_put_outside_of_a_conditional() -> None:
    """Credentials in the branches of a conditional: ours holds whichever branch is taken."""
    other = authenticator("plain").replace("ses_login", "other")
    text = ROUTE + f".ifdef A\n{authenticator('plain')}.else\n{other}.endif\n"

    rewired = one(text).texts[CONF]

    assert rewired.index(AUTHENTICATOR) < rewired.index(".ifdef A")
    assert 1 == rewired.count("client_send")


def test_authenticator_is_for_upstream_hosts_only() -> None:
    """Another relay of the host keeps its own authenticator: ours has a condition."""
    wiring = Wiring(Path("/run/s"), Path("/run/s/e"), None, frozenset({"mail.internal"}))

    assert "email-smtp" in wiring.client_condition
    assert "mail\\.internal" in wiring.client_condition
    assert "client_condition = ${if match{$host}" in one(ROUTE + authenticator("plain")).texts[CONF]


def test_choice_between_credentials_is_refused() -> None:
    """A client_send that computes its credential is for a person to take apart."""
    value = f"${{if eq{{$host}}{{a}}{{^{USER}^{PASSWORD}}}{{^user^word}}}}"
    text = ROUTE + f"a:\n  driver = plaintext\n  public_name = PLAIN\n  client_send = {value}\n"

    with pytest.raises(DeployError, match="chooses between credentials"):
        one(text)


def test_socket_change_updates_the_authenticator() -> None:
    """An earlier authenticator of ours with another socket is brought up to date."""
    old = one(ROUTE + authenticator("plain")).texts[CONF]
    moved = Wiring(Path("/run/other"), Path("/run/other/exim.sock"))

    text = one(old, moved).texts[CONF]

    assert moved.client_send in text
    assert "/run/sesguard" not in text
    assert text == one(text, moved).texts[CONF]


def test_last_line_without_newline_is_not_joined() -> None:
    """A file that ends without a newline stays well-formed."""
    text = one(authenticator("plain") + ROUTE.rpartition("\nremote_smtp:")[0])

    assert "hosts_try_auth = *hosts" not in text.texts[CONF]
    assert "driver = smtp\n  hosts_require_auth = *\n" in text.texts[CONF]


@pytest.mark.parametrize("path", ["/run/a:b/x", "/run/{x}", "/run/$x", "/run/a b", "/run/ü"])
def test_paths_that_exim_would_expand_are_refused(path: str) -> None:
    """A path with a character that is special to Exim never reaches its configuration."""
    with pytest.raises(DeployError, match="cannot be written"):
        Wiring(Path("/run"), Path(path))


_NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,12}", fullmatch=True)
_VALUES = st.text(
    st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="\\"), max_size=40
).map(str.strip)
_JUNK = st.lists(
    st.one_of(
        st.just(""),
        _VALUES.map(lambda text: f"# {text}"),
        st.tuples(_NAMES, _VALUES).map(lambda pair: f"  {pair[0]}_x = {pair[1]}"),
        st.tuples(_NAMES, _VALUES).map(lambda pair: f"  {pair[0]}_y = {pair[1]} \\\n    more"),
    ),
    max_size=6,
).map(lambda lines: "".join(line + "\n" for line in lines))


@given(
    st.lists(_JUNK, min_size=6, max_size=6),
    st.sampled_from(sorted(CLIENT_SEND)),
    st.binary(min_size=32, max_size=32),
)
def test_any_surroundings_are_kept(junk: list[str], form: str, digest: bytes) -> None:
    """Whatever stands around: the credential goes, a second time changes nothing, junk stays."""
    password = base64.b64encode(b"\x04" + digest).decode()
    wiring = Wiring(Path("/run/s"), Path("/run/s/e"), None, frozenset({"localhost"}))
    body = BODY.format(host="localhost", ses_port=587, ca_file="/ca.pem")
    block = CLIENT_SEND[form].format(user=USER, password=password)
    parts = body.split("\n\n")
    text = "\n\n".join(part + "\n" + extra for part, extra in zip(parts, junk, strict=False))
    text += "\n" + block + junk[-1]

    once = one(text, wiring)
    twice = rewire(once.texts, wiring)

    result = once.texts[CONF]
    assert once.in_place
    assert ("ses_smtp",) == once.transports
    assert once.texts == twice.texts
    for extra in junk[: len(parts)]:
        assert extra in result
    assert password not in result.replace(junk[-1], "")
