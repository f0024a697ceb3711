"""Which app is calling."""

import os
import pwd
from pathlib import Path

import pytest

from sesguard.config.load import parse_settings
from sesguard.core.secret import Secret
from sesguard.errors import SettingsError
from sesguard.relay.apps import NOBODY, Account, AppRule, account_of, app_named, app_rules
from sesguard.relay.identity import REMEMBERED_S, Identities
from sesguard.relay.model import (
    UNKNOWN,
    App,
    Caller,
    DeliveryMode,
    PolicyMode,
    Rates,
    Reason,
    Refusal,
)
from sesguard.relay.registry import AppRegistry

ACCOUNTS = {
    0: Account(0, "root", frozenset({0})),
    33: Account(33, "www-data", frozenset({33})),
    1001: Account(1001, "alice", frozenset({1001, 5000})),
    1002: Account(1002, "bob", frozenset({1002})),
    1003: Account(1003, "web1", frozenset({1003})),
    1004: Account(1004, "Évil{user}", frozenset({1004, 5000})),
    1005: Account(1005, None, frozenset()),
    NOBODY: Account(NOBODY, "nobody", frozenset({NOBODY})),
}


def rules(text: str) -> tuple[AppRule, ...]:
    """The apps of a settings file."""
    return app_rules(parse_settings(text.encode(), Path("/etc/sesguard/sesguard.toml")))


class Desk:
    """Identities of a host with the users above, its registry and its clock."""

    def __init__(self, directory: Path, text: str) -> None:
        self.asked: list[int] = []
        self.now = 1000.0
        self.accounts = dict(ACCOUNTS)
        self.registry = AppRegistry(directory / "apps.json")
        self.identities = Identities(rules(text), self.registry, lambda: self.now, self._account)

    def app(self, uid: int | None, gid: int | None = None, login: str | None = None) -> str:
        """The name of the app, or the refusal's reason."""
        answer = self.identities.app_for(Caller(uid, gid), login)
        return answer.name if isinstance(answer, App) else str(answer.reason)

    def refusal(self, uid: int | None, login: str | None = None) -> Refusal:
        """The refusal that there must be."""
        answer = self.identities.app_for(Caller(uid), login)
        assert isinstance(answer, Refusal)
        return answer

    def login(self, uid: int | None, name: str, token: Secret) -> str:
        """The name, or the refusal's reason."""
        answer = self.identities.login(Caller(uid), name, token)
        return answer if isinstance(answer, str) else str(answer.reason)

    def _account(self, uid: int) -> Account:
        self.asked.append(uid)
        return self.accounts[uid]


NOT = str(Reason.UNKNOWN_CALLER)


@pytest.mark.parametrize(
    ("conditions", "uids"),
    [
        ('users = ["alice"]', {1001}),
        ('users = ["1002"]', {1002}),
        ('users = ["1005"]', {1005}),
        ('users = ["root"]', {0}),
        ('users = ["0", "www-data"]', {0, 33}),
        ('users = ["*"]', {1001, 1002, 1003, 1004}),
        ('users = ["web?"]', {1003}),
        ('users = ["Web*"]', set()),
        ('users = ["www-*", "r??t", "nobod*"]', set()),
        ('users = ["nobody"]', {NOBODY}),
        ('groups = ["5000"]', {1001, 1004}),
        ('groups = ["0"]', {0}),
        ('groups = ["no-such-group-here"]', set()),
        ('users = ["alice", "bob"]\ngroups = ["5000"]', {1001}),
        ('users = ["*"]\nrequire_token = true', set()),
        ("", set()),
    ],
)
def test_conditions(tmp_path: Path, conditions: str, uids: set[int]) -> None:
    """Names, numbers, patterns and groups; all kinds that are given must hold."""
    desk = Desk(tmp_path, f"[apps.shop]\n{conditions}\n")

    assert uids == {uid for uid in ACCOUNTS if desk.app(uid) == "shop"}
    assert {NOT} == {desk.app(uid) for uid in ACCOUNTS.keys() - uids}


def test_group_of_the_caller(tmp_path: Path) -> None:
    """The group that the kernel tells counts beside those of the user, and for that call only."""
    desk = Desk(tmp_path, '[apps.shop]\ngroups = ["7000", "5000"]')

    assert "shop" == desk.app(1002, 7000)
    assert NOT == desk.app(1002, 1002)
    assert NOT == desk.app(1002)
    assert "shop" == desk.app(1001, 1001)


def test_group_by_its_name(tmp_path: Path) -> None:
    """A group of the host may be named."""
    name = "root" if os.getgid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    desk = Desk(tmp_path, f'[apps.shop]\ngroups = ["{name}"]')

    assert "shop" == desk.app(1002, os.getgid())


def test_table_for_each_user(tmp_path: Path) -> None:
    """A table with a star is one app for each user, who sends as itself."""
    desk = Desk(
        tmp_path,
        '[apps."cpanel:*"]\nusers = ["*"]\nsenders = ["{user}@example.com", "*@{user}.example"]',
    )
    answer = desk.identities.app_for(Caller(1001), None)

    assert isinstance(answer, App)
    assert ("cpanel:alice", ("alice@example.com", "*@alice.example")) == (
        answer.name,
        answer.senders,
    )
    assert "cpanel:bob" == desk.app(1002)
    assert {NOT} == {desk.app(uid) for uid in (0, 33, NOBODY, 1004, 1005)}


@pytest.mark.parametrize("groups", ["0", "33"])
def test_table_for_each_user_of_a_group(tmp_path: Path, groups: str) -> None:
    """A table with a star and no users is a pattern: system users are none of it."""
    desk = Desk(tmp_path, f'[apps."cpanel:*"]\ngroups = ["{groups}", "5000"]')

    assert {"cpanel:alice", NOT} == {desk.app(uid) for uid in ACCOUNTS}


def test_table_for_each_user_names_root(tmp_path: Path) -> None:
    """An exact name in such a table may be a system user."""
    assert "sys:root" == Desk(tmp_path, '[apps."sys:*"]\nusers = ["root"]').app(0)


def test_unknown_uid(tmp_path: Path) -> None:
    """A user without an app is told its uid, as the mail program's log will have it."""
    refusal = Desk(tmp_path, '[apps.shop]\nusers = ["alice"]').refusal(1002)

    assert b"530 5.7.0 no app is set up for uid 1002\r\n" == refusal.line()


def test_unknown_caller(tmp_path: Path) -> None:
    """Without a uid there is no app but by a token, whatever the patterns are."""
    desk = Desk(tmp_path, '[apps.shop]\nusers = ["*"]')

    assert b"530 5.7.0 log in with the token of an app\r\n" == desk.refusal(None).line()


def test_several_apps(tmp_path: Path) -> None:
    """A user whom several apps fit must say which, and is told their names."""
    text = '[apps.shop]\nusers = ["alice"]\n[apps.blog]\nusers = ["a*"]\n[apps."u:*"]\nusers=["*"]'
    desk = Desk(tmp_path, text)

    assert b"530 5.7.0 uid 1001 may be shop, blog, u:alice: log in with a token\r\n" == (
        desk.refusal(1001).line()
    )
    assert "u:bob" == desk.app(1002)
    assert "blog" == desk.app(1001, login="blog")


def test_token(tmp_path: Path) -> None:
    """A token names exactly its app; the name alone, or another app's token, is nothing."""
    desk = Desk(tmp_path, "[apps.shop]\n[apps.blog]\n")
    shop, blog = desk.registry.add_token("shop"), desk.registry.add_token("blog")

    assert "shop" == desk.login(1002, "shop", shop)
    assert "blog" == desk.login(None, "blog", blog)
    assert str(Reason.BAD_TOKEN) == desk.login(1002, "shop", blog)
    assert str(Reason.BAD_TOKEN) == desk.login(1002, "nobody", blog)
    assert str(Reason.BAD_TOKEN) == desk.login(1002, "shop", Secret(""))
    assert "shop" == desk.app(1002, login="shop")
    assert NOT == desk.app(1002)


def test_failed_login_says_nothing(tmp_path: Path) -> None:
    """The reply is the same for a wrong token, an unknown app and a user who may not."""
    desk = Desk(tmp_path, '[apps.shop]\nusers = ["alice"]')
    token = desk.registry.add_token("shop")
    answers = [
        desk.identities.login(Caller(1001), "shop", Secret("sgt_x")),
        desk.identities.login(Caller(1001), "nothing", token),
        desk.identities.login(Caller(1002), "shop", token),
    ]

    assert {Refusal(Reason.BAD_TOKEN, 535, "5.7.8", "authentication failed")} == set(answers)


def test_token_and_user(tmp_path: Path) -> None:
    """The app's users and groups hold for a token as well where the kernel knows the caller."""
    desk = Desk(tmp_path, '[apps.shop]\nusers = ["alice"]\nrequire_token = true')
    token = desk.registry.add_token("shop")

    assert "shop" == desk.login(1001, "shop", token)
    assert "shop" == desk.app(1001, login="shop")
    assert NOT == desk.app(1001)
    assert str(Reason.BAD_TOKEN) == desk.login(1002, "shop", token)
    assert NOT == desk.app(1002, login="shop")
    assert "shop" == desk.login(None, "shop", token)
    assert "shop" == desk.app(None, login="shop")


def test_token_for_one_user_of_a_table(tmp_path: Path) -> None:
    """A token for one user's app does not serve another user, nor one who is not of the table."""
    desk = Desk(tmp_path, '[apps."web:*"]\nusers = ["alice", "bob"]')
    token = desk.registry.add_token("web:alice")

    assert "web:alice" == desk.login(1001, "web:alice", token)
    assert str(Reason.BAD_TOKEN) == desk.login(1002, "web:alice", token)
    assert NOT == desk.app(1002, login="web:alice")
    assert NOT == desk.app(1003, login="web:web1")
    # There is no user alice on this host, so a caller without a uid cannot be hers.
    assert NOT == desk.app(None, login="web:no-such-user-here")


def test_token_for_one_user_from_elsewhere(tmp_path: Path) -> None:
    """A caller whom the kernel does not name is judged by the user that the app is of."""
    me = pwd.getpwuid(os.getuid())
    desk = Desk(tmp_path, f'[apps."web:*"]\nusers = ["{me.pw_name}"]')
    desk.accounts[me.pw_uid] = Account(me.pw_uid, me.pw_name, frozenset({me.pw_gid}))

    assert f"web:{me.pw_name}" == desk.app(None, login=f"web:{me.pw_name}")


@pytest.mark.parametrize("name", ["site:*", "site:", "site:a b", "site:A", "site:é", "site"])
def test_token_for_a_table_of_tokens(tmp_path: Path, name: str) -> None:
    """Apps of a table without users are reached by tokens, under names that are fit for one."""
    desk = Desk(tmp_path, '[apps."site:*"]\nsenders = ["*@{user}"]')

    assert "site:shop.example" == desk.app(33, login="site:shop.example")
    assert "site:shop.example" == desk.app(None, login="site:shop.example")
    assert NOT == desk.app(33, login=name)


def test_suspended(tmp_path: Path) -> None:
    """A suspended app keeps its mail, from the very next message on, and is not told the rest."""
    desk = Desk(tmp_path, '[apps.shop]\nusers = ["alice"]')
    admin = AppRegistry(tmp_path / "apps.json")
    assert "shop" == desk.app(1001)

    admin.suspend("shop", "a private reason")

    assert b"450 4.7.1 app shop is suspended; its mail stays with you for now\r\n" == (
        desk.refusal(1001).line()
    )
    admin.resume("shop")
    assert "shop" == desk.app(1001)


def test_registry_that_cannot_be_read(tmp_path: Path) -> None:
    """An app that may be suspended does not send, and neither mail nor token is refused."""
    (tmp_path / "apps.json").write_text("{")
    desk = Desk(tmp_path, '[apps.shop]\nusers = ["alice"]')
    login = desk.identities.login(Caller(1001), "shop", Secret("x"))

    assert (Reason.BUSY, 451) == (desk.refusal(1001).reason, desk.refusal(1001).code)
    assert isinstance(login, Refusal)
    assert (Reason.BUSY, 454) == (login.reason, login.code)


def test_name_service_is_asked_once_a_minute(tmp_path: Path) -> None:
    """A user is looked up once in a minute, also one without an app, and then anew."""
    desk = Desk(tmp_path, '[apps.shop]\nusers = ["alice"]\n[apps.blog]\nusers = ["web*"]')
    for uid in (1001, 1002) * 10:
        desk.app(uid, 100 + uid)
        desk.app(uid)
    assert [1001, 1002] == desk.asked

    desk.accounts[1002] = Account(1002, "alice", frozenset())
    desk.now += REMEMBERED_S - 1
    assert NOT == desk.app(1002)
    desk.now += 1
    assert "shop" == desk.app(1002)
    assert [1001, 1002, 1002] == desk.asked


def test_update(tmp_path: Path) -> None:
    """Other settings count from the next message on."""
    desk = Desk(tmp_path, '[apps.shop]\nusers = ["alice"]')
    assert "shop" == desk.app(1001)

    desk.identities.update(rules('[apps.blog]\nusers = ["alice"]'))

    assert "blog" == desk.app(1001)


def test_many_users(tmp_path: Path) -> None:
    """More users than are remembered are still each told right."""
    desk = Desk(tmp_path, '[apps."u:*"]\nusers = ["*"]')
    desk.accounts |= {n: Account(n, f"u{n}", frozenset()) for n in range(10_000, 15_000)}

    for uid in range(10_000, 15_000):
        assert f"u:u{uid}" == desk.app(uid)
        assert "u:alice" == desk.app(1001)


def test_account_of_this_process() -> None:
    """The host's name service tells the name and all groups of a user, or nothing."""
    me = pwd.getpwuid(os.getuid())

    assert me.pw_name == account_of(me.pw_uid).name
    assert me.pw_gid in account_of(me.pw_uid).gids
    assert Account(3_999_999_999, None, frozenset()) == account_of(3_999_999_999)


def test_what_a_table_yields() -> None:
    """Every key of a table is in its app."""
    [rule] = rules(
        '[apps.shop]\nsenders = ["*"]\nallowed_recipients = ["a@example.com"]\n'
        'denied_recipients = ["*@example.org"]\nmax_recipients = 5\nmax_message_bytes = 5000\n'
        'per_minute = 1\nper_hour = 2\nper_day = 3\npolicy = "hold"\ndelivery = "pass"\n'
        'credential = "ses"\nconfiguration_set = "set"'
    )

    assert rule.is_token_only
    assert rule.app == App(
        "shop",
        ("*",),
        ("a@example.com",),
        ("*@example.org",),
        5,
        5000,
        Rates(1, 2, 3),
        PolicyMode.HOLD,
        DeliveryMode.PASS,
        "ses",
        "set",
    )
    assert (rule, rule.app) == app_named((rule,), "shop")
    assert app_named((rule,), "shop:x") is None


@pytest.mark.parametrize(
    ("key", "pattern"),
    [
        ("senders", "example.com"),
        ("senders", "*@"),
        ("senders", "@example.com"),
        ("senders", "*@*.example.com"),
        ("senders", "a*@example.com"),
        ("senders", "a@b@example.com"),
        ("senders", "<a@example.com>"),
        ("senders", "{user}@example.com"),
        ("senders", ""),
        ("allowed_recipients", "*.com"),
        ("denied_recipients", "a b@example.com"),
    ],
)
def test_pattern_that_means_nothing(key: str, pattern: str) -> None:
    """A rule that could never hold is an error that names it, not a hole."""
    with pytest.raises(SettingsError, match=f"apps.shop.{key}"):
        rules(f'[apps.shop]\n{key} = ["{pattern}"]')


def test_caller_without_rules(tmp_path: Path) -> None:
    """Without apps nobody is one."""
    assert isinstance(Desk(tmp_path, "").identities.app_for(UNKNOWN, None), Refusal)
