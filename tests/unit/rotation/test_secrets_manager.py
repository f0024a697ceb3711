"""The rotation function of Secrets Manager, called as Lambda calls it, against the sandbox."""

import json
import uuid

import pytest

from rigs.managed_secret import (
    NAME,
    STEPS,
    Managed,
    Remaining,
)
from sesguard.errors import CheckFailed, SettingsError
from sesguard.rotation.secrets_manager import handler


class TestRotation:
    def test_the_first_rotation_issues_the_first_key(self, managed: Managed) -> None:
        """A value that only says whose key is wanted becomes one that a host can log in with."""
        managed.create(managed.value())
        managed.rotate()

        assert {managed.username(): "Active"} == managed.keys()
        assert managed.logs_in()
        assert managed.value().items() <= managed.read("AWSCURRENT").items()

    def test_both_keys_work_after_a_rotation(self, managed: Managed) -> None:
        """Hosts take the new value when they like."""
        managed.create(managed.value_of_new_key())
        old = managed.username()
        managed.rotate()

        assert old == managed.username("AWSPREVIOUS") != managed.username()
        assert managed.logs_in("AWSPREVIOUS")
        assert managed.logs_in()

    def test_ten_rotations_in_a_row(self, managed: Managed) -> None:
        """The user never has a third key, and the secret always has one that works."""
        managed.create(managed.value())
        seen = []
        for _ in range(10):
            managed.rotate()
            seen.append(managed.username())
            assert set(seen[-2:]) == set(managed.keys())
            assert managed.logs_in()

        assert 10 == len(set(seen))
        assert {} == managed.tags()

    def test_every_step_may_be_repeated(self, two_keys: Managed) -> None:
        """Secrets Manager repeats whatever it got no answer for."""
        old = two_keys.username()
        two_keys.rotate(times=2)

        assert {old, two_keys.username()} == set(two_keys.keys())
        assert two_keys.logs_in()

    def test_a_retry_after_the_end_does_not_wedge(self, two_keys: Managed) -> None:
        """All steps again with the token of a finished rotation do nothing, and the next works."""
        token = two_keys.rotate()
        keys = two_keys.keys()
        two_keys.rotate(token)
        unchanged = two_keys.keys() == keys
        two_keys.rotate()

        assert unchanged
        assert two_keys.logs_in()
        assert 2 == len(two_keys.keys())

    def test_every_region_gets_a_password(self, managed: Managed) -> None:
        """They are derived from one key; only the first is tested where there is one host."""
        managed.create(managed.value(regions=["us-east-1", "eu-west-1"]))
        managed.rotate()

        assert ["us-east-1", "eu-west-1"] == list(managed.read("AWSCURRENT")["passwords"])
        assert managed.logs_in()

    def test_a_key_that_was_not_ours_may_stay_beside_the_first(self, managed: Managed) -> None:
        """Hosts that still have a key by hand go on; it is named when its slot is needed."""
        foreign = managed.value_of_new_key()["username"]
        managed.create(managed.value())
        managed.rotate()

        assert {foreign, managed.username()} == set(managed.keys())
        with pytest.raises(CheckFailed, match=f"{foreign} .* is not of this credential"):
            managed.rotate()
        assert managed.logs_in()

    def test_what_the_log_says(self, two_keys: Managed, capsys: pytest.CaptureFixture[str]) -> None:
        """One JSON object for each call, and no secret."""
        two_keys.rotate()
        output = capsys.readouterr().out
        entries = [json.loads(line) for line in output.splitlines()]
        new = two_keys.username()

        assert [f"made {new}", "nothing to set", f"{new} logs in", f"{new} is current"] == [
            entry["outcome"] for entry in entries
        ]
        assert list(STEPS) == [entry["step"] for entry in entries]
        assert [] == [secret for secret in two_keys.known_secrets if secret in output]


class TestRefusals:
    @pytest.mark.parametrize("step", STEPS)
    def test_rotation_must_be_enabled(self, managed: Managed, step: str) -> None:
        """Anybody who may call the function cannot make it rotate a secret that does not."""
        managed.create(managed.value())

        with pytest.raises(CheckFailed, match="is not enabled"):
            managed.call(step, managed.version_in("AWSCURRENT"))
        assert {} == managed.keys()

    @pytest.mark.parametrize("step", STEPS)
    def test_the_version_must_be_pending(self, two_keys: Managed, step: str) -> None:
        """Neither an unknown version nor an old one can be made current."""
        two_keys.begin()
        keys = two_keys.keys()

        for token in (str(uuid.uuid4()), two_keys.version_in("AWSPREVIOUS")):
            with pytest.raises(CheckFailed, match="is not pending"):
                two_keys.call(step, token)
        assert keys == two_keys.keys()

    @pytest.mark.parametrize("step", STEPS[1:])
    def test_a_step_before_the_first(self, two_keys: Managed, step: str) -> None:
        """Without a key there is nothing to test or to finish."""
        with pytest.raises(CheckFailed, match="has no key yet"):
            two_keys.call(step, two_keys.begin())

    def test_an_event_that_is_none(self, two_keys: Managed) -> None:
        """What is missing is named."""
        with pytest.raises(SettingsError, match="the event has no SecretId"):
            handler({}, Remaining(60))
        with pytest.raises(SettingsError, match="the event has no ClientRequestToken"):
            two_keys.call("createSecret")
        with pytest.raises(SettingsError, match="there is no step 'destroySecret'"):
            two_keys.call("destroySecret", "token")

    def test_the_region_must_be_known(
        self, two_keys: Managed, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A name is looked for in the region of the function."""
        monkeypatch.delenv("AWS_REGION", raising=False)
        event = {"SecretId": NAME, "Step": "retire"}
        with pytest.raises(SettingsError, match="the region of mail/ses is not known"):
            handler(event, Remaining(60))

        monkeypatch.setenv("AWS_REGION", "us-east-1")
        handler(event, Remaining(60))

    @pytest.mark.parametrize("hours", ["soon", "-1", "nan", "1e9"])
    def test_the_time_of_grace_must_be_a_number(
        self, two_keys: Managed, monkeypatch: pytest.MonkeyPatch, hours: str
    ) -> None:
        """A misspelt one is not taken for none."""
        monkeypatch.setenv("SESGUARD_GRACE_HOURS", hours)

        with pytest.raises(SettingsError, match="SESGUARD_GRACE_HOURS"):
            two_keys.call("retire")

    def test_a_secret_without_a_value(self, managed: Managed) -> None:
        """Nothing says whose key is wanted."""
        managed.arn = managed.store.create_secret(Name=NAME)["ARN"]

        with pytest.raises(CheckFailed, match="no value that says whose key is wanted"):
            managed.call("retire")

    def test_a_key_that_is_not_ours(self, managed: Managed) -> None:
        """It is named and left alone, although nobody ever used it."""
        managed.create(managed.value_of_new_key())
        foreign = managed.value_of_new_key()["username"]
        keys = managed.keys()

        with pytest.raises(CheckFailed, match=f"{foreign} .Active.* is not of this credential"):
            managed.rotate()
        assert keys == managed.keys()

    def test_a_key_of_a_value_that_is_not_ours(self, managed: Managed) -> None:
        """What a previous value of another format says is not trusted."""
        old, new = managed.value_of_new_key(), managed.value_of_new_key()
        managed.create(f"{old['username']}:{old['passwords']['us-east-1']}", new)

        with pytest.raises(CheckFailed, match=old["username"]):
            managed.rotate()
        assert 2 == len(managed.keys())
