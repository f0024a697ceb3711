"""The rotation function of Secrets Manager when something fails, is in use, or is killed."""

from datetime import UTC, datetime, timedelta

import pytest

from rigs.managed_secret import USER, Managed, killed_at, shows_password
from sesguard.errors import AwsError, CheckFailed, UpstreamError
from sesguard.sandbox.model import ApiFault, ApiFaultKind, Fault, FaultKind, Stage


class TestFailures:
    def test_a_value_that_cannot_be_kept(self, managed: Managed) -> None:
        """The key that was made for it is deleted, and the next attempt succeeds."""
        managed.create(managed.value_of_new_key())
        keys, token = managed.keys(), managed.begin()
        denied = ApiFault("secretsmanager:PutSecretValue", ApiFaultKind.DENIED)
        managed.rig.client.set_api_faults(denied)

        with pytest.raises(AwsError, match="PutSecretValue") as caught:
            managed.call("createSecret", token)
        assert not shows_password(caught.value)
        assert keys == managed.keys()
        managed.rotate(token)
        assert managed.logs_in()

    def test_a_value_whose_answer_is_lost(self, managed: Managed) -> None:
        """The key stays, because the value was kept."""
        managed.create(managed.value_of_new_key())
        lost = ApiFault("secretsmanager:PutSecretValue", ApiFaultKind.LOST, count=None)
        managed.rig.client.set_api_faults(lost)
        token = managed.begin()
        managed.call("createSecret", token)
        managed.rig.client.clear_api_faults()

        managed.rotate(token)
        assert managed.logs_in()
        assert 2 == len(managed.keys())

    @pytest.mark.parametrize("kind", [ApiFaultKind.LOST, ApiFaultKind.UNREACHABLE])
    def test_nothing_is_known_of_the_value(self, managed: Managed, kind: ApiFaultKind) -> None:
        """The key stays until the next attempt finds out whether it is wanted."""
        managed.create(managed.value_of_new_key())
        token = managed.begin()
        managed.rig.client.set_api_faults(
            ApiFault("secretsmanager:PutSecretValue", kind, count=None),
            ApiFault("secretsmanager:GetSecretValue", ApiFaultKind.DENIED, count=None, after=3),
        )
        with pytest.raises(AwsError):
            managed.call("createSecret", token)
        left = managed.keys()
        managed.rig.client.clear_api_faults()
        managed.rotate(token)

        assert 2 == len(left)
        assert 2 == len(managed.keys())
        assert managed.logs_in()

    def test_a_lost_key(self, managed: Managed) -> None:
        """IAM made it and the answer got lost: it is deleted, and another one is made."""
        managed.create(managed.value_of_new_key())
        managed.rig.client.set_api_faults(ApiFault("iam:CreateAccessKey", ApiFaultKind.LOST))
        managed.rotate()

        assert {managed.username(), managed.username("AWSPREVIOUS")} == set(managed.keys())

    @pytest.mark.parametrize("step", ["testSecret", "finishSecret"])
    def test_a_key_that_does_not_log_in(self, two_keys: Managed, step: str) -> None:
        """AWSCURRENT does not move, whichever step notices; later it does."""
        token, old = two_keys.begin(), two_keys.username()
        two_keys.call("createSecret", token)
        two_keys.rig.client.set_faults(Fault(Stage.AUTH, FaultKind.REPLY_454))

        with pytest.raises(UpstreamError, match="did not take the new key") as caught:
            two_keys.call(step, token, seconds=0)
        assert not shows_password(caught.value)
        assert old == two_keys.username()
        two_keys.rig.client.clear_faults()
        two_keys.rotate(token)
        assert two_keys.logs_in()

    def test_a_key_that_does_not_work_yet(self, two_keys: Managed) -> None:
        """The test waits for IAM, as long as the function may run."""
        two_keys.rig.client.configure(new_key_delay_s=1.0)
        two_keys.rotate()

        assert two_keys.logs_in()

    @pytest.mark.parametrize("status", ["deactivated", "deleted"])
    def test_a_pending_key_that_somebody_took_away(self, two_keys: Managed, status: str) -> None:
        """The message says how to give that rotation up, and then the next one works."""
        token = two_keys.begin()
        two_keys.call("createSecret", token)
        key = {"UserName": USER, "AccessKeyId": two_keys.username("AWSPENDING")}
        if status == "deleted":
            two_keys.iam.delete_access_key(**key)
        else:
            two_keys.iam.update_access_key(**key, Status="Inactive")

        with pytest.raises(CheckFailed, match=f"the new key .* is {status}") as caught:
            two_keys.call("setSecret", token)
        assert f"--remove-from-version-id {token}" in str(caught.value.hint)
        two_keys.rotate()
        assert two_keys.logs_in()
        assert 2 == len(two_keys.keys())

    def test_a_rotation_that_was_given_up(self, two_keys: Managed) -> None:
        """Its key was never used: the next rotation knows it for its own, and deletes it."""
        token = two_keys.begin()
        two_keys.call("createSecret", token)
        abandoned = two_keys.username("AWSPENDING")
        two_keys.rotate()

        assert abandoned not in set(two_keys.keys())
        assert two_keys.logs_in()

    def test_a_key_of_an_attempt_that_was_used(
        self, managed: Managed, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is no orphan: it goes by the same rule as an old key."""
        managed.create(managed.value())
        managed.value_of_new_key()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        managed.tag("rotation", " ".join([now, *managed.keys()]))
        used, token = managed.value_of_new_key()["username"], managed.begin()
        managed.use(used)
        monkeypatch.setenv("SESGUARD_GRACE_HOURS", "24")

        with pytest.raises(CheckFailed, match=f"{used} used by sts"):
            managed.rotate(token)
        monkeypatch.setenv("SESGUARD_GRACE_HOURS", "0")
        managed.rotate(token)
        assert used not in set(managed.keys())
        assert managed.logs_in()

    def test_a_foreign_key_made_long_after_an_attempt(self, two_keys: Managed) -> None:
        """What an attempt wrote down proves nothing about a key that came later."""
        two_keys.iam.delete_access_key(UserName=USER, AccessKeyId=two_keys.username("AWSPREVIOUS"))
        an_hour_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat(timespec="seconds")
        two_keys.tag("rotation", f"{an_hour_ago} {two_keys.username()}")
        foreign = two_keys.value_of_new_key()["username"]

        with pytest.raises(CheckFailed, match=foreign):
            two_keys.rotate()
        assert foreign in set(two_keys.keys())

    @pytest.mark.parametrize("text", ["hello", "{old} hello", "2026-99-99 {old}", ""])
    def test_a_tag_that_somebody_else_wrote(self, two_keys: Managed, text: str) -> None:
        """It is not believed, and does no harm."""
        for name in ("rotation", "retired"):
            two_keys.tag(name, text.format(old=two_keys.username("AWSPREVIOUS")))
        two_keys.rotate()

        assert two_keys.logs_in()


class TestOldKey:
    def test_one_that_is_in_use_stays(
        self, two_keys: Managed, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who needs its slot is told where it was seen, and it is not even deactivated."""
        monkeypatch.setenv("SESGUARD_GRACE_HOURS", "24")
        old, keys = two_keys.username("AWSPREVIOUS"), two_keys.keys()
        two_keys.use(old)

        for step, token in (("createSecret", two_keys.begin()), ("retire", None)):
            with pytest.raises(CheckFailed, match=f"{old} used by sts in us-east-1"):
                two_keys.call(step, token)
        assert keys == two_keys.keys()

    def test_one_that_was_replaced_just_now_stays(
        self, two_keys: Managed, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A host that did not fetch the new value yet goes on sending."""
        monkeypatch.setenv("SESGUARD_GRACE_HOURS", "24")
        two_keys.rotate()
        keys, token = two_keys.keys(), two_keys.begin()
        two_keys.call("retire")

        with pytest.raises(CheckFailed, match="was replaced less than 24 h ago"):
            two_keys.call("createSecret", token)
        assert keys == two_keys.keys()

    def test_retiring_goes_by_steps(
        self, two_keys: Managed, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Deactivated, left so for the time of grace, then deleted; then there is nothing to do."""
        monkeypatch.setenv("SESGUARD_GRACE_HOURS", "24")
        old, new = two_keys.username("AWSPREVIOUS"), two_keys.username()
        seen = []
        for hours in ("24", "24", "0", "0"):
            monkeypatch.setenv("SESGUARD_GRACE_HOURS", hours)
            two_keys.call("retire")
            seen.append(two_keys.keys())

        waiting = {old: "Inactive", new: "Active"}
        assert [waiting, waiting, {new: "Active"}, {new: "Active"}] == seen
        assert {} == two_keys.tags()

    def test_one_that_was_deactivated_by_hand(self, two_keys: Managed) -> None:
        """The time in which somebody may notice begins with the first look at it."""
        old = two_keys.username("AWSPREVIOUS")
        two_keys.set_status(old, "Inactive")
        two_keys.call("retire")
        noted = two_keys.tags()["sesguard:retired"]
        two_keys.call("retire")

        assert noted.startswith(f"{old} 20")
        assert old not in set(two_keys.keys())

    def test_one_that_was_activated_again_stays(self, two_keys: Managed) -> None:
        """Somebody needs it, whatever IAM says of its use."""
        old = two_keys.username("AWSPREVIOUS")
        two_keys.call("retire")
        two_keys.set_status(old, "Active")

        for step, token in (("createSecret", two_keys.begin()), ("retire", None)):
            with pytest.raises(CheckFailed, match=f"{old} was activated again"):
                two_keys.call(step, token)
        assert "Active" == two_keys.keys()[old]

    def test_one_without_a_successor_stays(self, two_keys: Managed) -> None:
        """When the current key does not work, the old one may be all that does."""
        two_keys.set_status(two_keys.username(), "Inactive")
        keys = two_keys.keys()

        for step, token in (("createSecret", two_keys.begin()), ("retire", None)):
            with pytest.raises(CheckFailed, match=f"{two_keys.username()} is not active"):
                two_keys.call(step, token)
        assert keys == two_keys.keys()

    def test_one_under_a_first_value_is_in_use(self, managed: Managed) -> None:
        """Who writes a first value over another one has not replaced its key yet."""
        managed.create(managed.value_of_new_key(), managed.value())
        old = managed.username("AWSPREVIOUS")
        managed.call("retire")
        status = managed.keys()
        managed.rotate()

        assert {old: "Active"} == status
        assert {old, managed.username()} == set(managed.keys())
        with pytest.raises(CheckFailed, match=old):
            managed.rotate()

    def test_nothing_is_retired_before_there_is_an_old_key(self, managed: Managed) -> None:
        """Neither without a previous value, nor when its key is the current one, or is gone."""
        value = managed.value_of_new_key()
        managed.create(value)
        managed.call("retire")
        managed.create(value)
        managed.call("retire")
        lost, current = managed.value_of_new_key(), managed.value_of_new_key
        managed.iam.delete_access_key(UserName=USER, AccessKeyId=lost["username"])
        managed.create(lost, current())
        managed.call("retire")

        assert 2 == len(managed.keys())


class TestKilled:
    @pytest.mark.parametrize("kind", [ApiFaultKind.LOST, ApiFaultKind.UNREACHABLE])
    def test_after_the_key_was_made(self, managed: Managed, kind: ApiFaultKind) -> None:
        """The function dies as it keeps the value, or just before: no key is left over."""
        managed.create(managed.value_of_new_key())
        token = managed.begin()
        fault = ApiFault("secretsmanager:PutSecretValue", kind, delay_s=1.0)
        assert killed_at(managed, fault, token)

        assert 2 == len(managed.keys())
        managed.rotate(token)
        assert {managed.username(), managed.username("AWSPREVIOUS")} == set(managed.keys())
        assert managed.logs_in()

    def test_after_every_call(self, two_keys: Managed) -> None:
        """Killed once an AWS call took effect, whichever it is, a rotation converges on a retry."""
        killed, token = 0, two_keys.begin()
        while killed_at(
            two_keys, ApiFault("*", ApiFaultKind.LOST, after=killed, delay_s=1.0), token
        ):
            killed += 1
            assert 2 >= len(two_keys.keys())
            assert two_keys.logs_in()
            two_keys.rotate(token)
            staged = {two_keys.username(stage) for stage in ("AWSCURRENT", "AWSPREVIOUS")}
            assert (staged, {}) == (set(two_keys.keys()), two_keys.tags())
            assert two_keys.logs_in()
            token = two_keys.begin()

        assert killed > 20
