"""sesguard app add, list, revoke, suspend and resume."""

import json
import time
from pathlib import Path

import pytest

from rigs.command_line import Cli
from sesguard.core.secret import Secret
from sesguard.relay.model import App, Rates
from sesguard.relay.rates import RATES_FILE, RateTable
from sesguard.relay.registry import REGISTRY_FILE, TOKEN, AppRegistry

APPS = """
[apps.shop]
users = ["www-data"]
groups = ["shop"]
senders = ["*@example.com"]
per_minute = 100
delivery = "pass"

[apps."cpanel:*"]
users = ["*"]
senders = ["{user}@example.com"]
"""


@pytest.fixture
def base(host: Path, config: Path) -> Path:
    """A host with two tables of apps."""
    text = config.read_text() + APPS
    if "\nspool_directory" not in text:
        text += f'\n[relay]\nspool_directory = "{host}/relay"\n'
    config.write_text(text)
    return host


@pytest.fixture
def registry(base: Path) -> AppRegistry:
    """What the relay sees."""
    return AppRegistry(base / REGISTRY_FILE)


def listed(cli: Cli) -> dict[str, dict[str, object]]:
    """The apps of ``app list --json`` by their names."""
    document = json.loads(cli("app", "list", "--json").out)
    assert 1 == document["version"]
    return {app["name"]: app for app in document["apps"]}


def test_add(cli: Cli, registry: AppRegistry, base: Path) -> None:
    """The token is all of standard output, works at once, and is written down nowhere."""
    result = cli("app", "add", "shop", "--label", "cron")
    token = result.out.removesuffix("\n")

    assert 0 == result.code
    assert TOKEN.fullmatch(token)
    assert registry.verify("shop", Secret(token))
    assert token not in result.err
    secret = token.rsplit("_", 1)[1].encode()
    assert not [path for path in base.rglob("*") if path.is_file() and secret in path.read_bytes()]
    act = json.loads((base / "audit.log").read_text().splitlines()[-1])
    assert ("app-add-token", "shop", "cron") == (act["act"], act["app"], act["label"])


def test_add_for_one_of_a_table(cli: Cli, registry: AppRegistry) -> None:
    """A token of a table with a star is for one user of it."""
    token = cli("app", "add", "cpanel:alice").out.strip()

    assert registry.verify("cpanel:alice", Secret(token))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("blog", '[apps.blog] and senders = ["*@example.com"]'),
        ("site:bob", '[apps."site:*"] and senders'),
        ("cpanel:*", "hint: name a user in place of the *"),
    ],
)
def test_add_for_what_is_no_app(cli: Cli, base: Path, name: str, hint: str) -> None:
    """An app that the settings lack gets no token, but the lines to add."""
    result = cli("app", "add", name)

    assert (2, "") == (result.code, result.out)
    assert hint in result.err
    assert not (base / REGISTRY_FILE).exists()


def test_list(cli: Cli, base: Path, registry: AppRegistry) -> None:
    """Each app is shown with its callers, tokens, rates and suspension, and no secret."""
    token = cli("app", "add", "shop", "--label", "cron").out.strip()
    cli("app", "suspend", "cpanel:alice", "--reason", "spam")
    (base / "relay").mkdir(exist_ok=True)
    rates = RateTable(base / "relay" / RATES_FILE)
    assert rates.take(App("shop", rates=Rates(100)), 40, time.time() + 3600) is None

    table = cli("app", "list")
    apps = listed(cli)

    assert ["shop", "cpanel:*", "cpanel:alice"] == list(apps)
    assert [{"window": "minute", "limit": 100, "used": 40}] == apps["shop"]["usage"]
    assert (["www-data"], ["shop"], False) == (
        apps["shop"]["users"],
        apps["shop"]["groups"],
        apps["shop"]["require_token"],
    )
    [kept] = registry.entries()["shop"].tokens
    assert [{"id": kept.id, "label": "cron", "created": kept.created}] == apps["shop"]["tokens"]
    assert ["alice@example.com"] == apps["cpanel:alice"]["senders"]
    assert ("spool", "enforce", None) == (
        apps["cpanel:*"]["delivery"],
        apps["cpanel:*"]["policy"],
        apps["cpanel:*"]["suspended"],
    )
    assert "www-data @shop" in table.out
    assert f"{kept.id} (cron)" in table.out
    assert "40/100 minute" in table.out
    assert "spam" in table.out
    assert token.rsplit("_", 1)[1] not in table.out + json.dumps(apps)


def test_list_makes_nothing(cli: Cli, base: Path) -> None:
    """Looking makes no files that the daemon could not write afterwards."""
    before = sorted(base.rglob("*"))

    assert 0 == cli("app", "list").code
    assert before == sorted(base.rglob("*"))


def test_list_without_apps(cli: Cli, host: Path) -> None:
    """Settings without apps are an empty list."""
    assert {} == listed(cli)


def test_revoke(cli: Cli, registry: AppRegistry) -> None:
    """A revoked token is wrong from then on; the others stay."""
    first, second = (Secret(cli("app", "add", "shop").out.strip()) for _ in range(2))
    token_id = first.reveal().split("_")[1]

    result = cli("app", "revoke", "shop", token_id)

    assert 0 == result.code
    assert token_id in result.err
    assert not registry.verify("shop", first)
    assert registry.verify("shop", second)
    assert 0 == cli("app", "revoke", "shop", "--all").code
    assert not registry.verify("shop", second)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("shop",), "name one token, or --all"),
        (("shop", "deadbeef", "--all"), "name one token, or --all"),
        (("shop", "deadbeef"), "app shop has no token deadbeef"),
        (("blog", "deadbeef"), "there is no app blog"),
    ],
)
def test_revoke_what_is_not_there(
    cli: Cli, base: Path, arguments: tuple[str, ...], text: str
) -> None:
    """What is not there cannot be revoked."""
    result = cli("app", "revoke", *arguments)

    assert 2 == result.code
    assert text in result.err


def test_app_that_left_the_settings(cli: Cli, registry: AppRegistry, config: Path) -> None:
    """Tokens of an app that is no longer in the settings are shown and can be revoked."""
    cli("app", "add", "shop")
    cli("app", "suspend", "shop")
    config.write_text(config.read_text().replace("[apps.shop]", "[apps.other]"))

    assert "not in the settings" in cli("app", "list").out
    assert listed(cli)["shop"]["in_settings"] is False
    assert 0 == cli("app", "revoke", "shop", "--all").code
    assert 0 == cli("app", "resume", "shop").code
    assert {} == registry.entries()


@pytest.mark.parametrize("name", ["shop", "cpanel:*", "cpanel:alice"])
def test_suspend_and_resume(cli: Cli, registry: AppRegistry, name: str) -> None:
    """Suspending counts at once, for an app, a table, or one of its apps; so does resuming."""
    app = name.replace("*", "bob")
    suspended = cli("app", "suspend", name)

    assert (0, "") == (suspended.code, suspended.out)
    assert f"run: sesguard app resume {name}" in suspended.err
    assert registry.suspended(app)

    resumed = cli("app", "resume", name)
    assert 0 == resumed.code
    assert "may send again" in resumed.err
    assert not registry.suspended(app)
    assert "was not suspended" in cli("app", "resume", name).err


@pytest.mark.parametrize("act", ["suspend", "resume"])
def test_suspend_what_is_no_app(cli: Cli, base: Path, act: str) -> None:
    """A slip of the pen suspends nothing in silence."""
    result = cli("app", act, "shpo")

    assert 2 == result.code
    assert "there is no app shpo" in result.err


def test_damaged_registry(cli: Cli, base: Path) -> None:
    """A damaged registry is an error that says what to do, and is not written over."""
    (base / REGISTRY_FILE).write_text("{")

    for arguments in (("list",), ("add", "shop"), ("suspend", "shop")):
        result = cli("app", *arguments)
        assert (4, "") == (result.code, result.out)
        assert "hint: put a copy back" in result.err
    assert "{" == (base / REGISTRY_FILE).read_text()
