"""What the endpoint takes and refuses at the end of DATA: policies, identities, pauses, quotas."""

import json
from typing import Any

import pytest

from rigs.sandbox import SandboxRig, mail, transaction
from sesguard.sandbox.seed import SeededKey

ACCOUNT = "123456789012"
DOMAIN_ARN = f"arn:aws:ses:us-east-1:{ACCOUNT}:identity/example.com"
SET_ARN = f"arn:aws:ses:us-east-1:{ACCOUNT}:configuration-set/main"


def policy(*statements: dict[str, Any]) -> dict[str, Any]:
    """A policy document; each statement is an Allow for sending with anything, changed."""
    whole = [
        {"Effect": "Allow", "Action": "ses:SendRawEmail", "Resource": "*", **item}
        for item in statements
    ]
    return {"Version": "2012-10-17", "Statement": whole}


def user_arn(key: SeededKey) -> str:
    """The ARN that an access denial names."""
    return f"arn:aws:iam::{ACCOUNT}:user/{key.user_name}"


def denied(key: SeededKey, resource: str = DOMAIN_ARN) -> tuple[int, str]:
    """SES's answer to a denied message."""
    text = (
        f"Access denied: User `{user_arn(key)}' is not authorized to perform "
        f"`ses:SendRawEmail' on resource `{resource}'"
    )
    return 554, text


def unverified(*addresses: str, region: str = "US-EAST-1") -> tuple[int, str]:
    """SES's answer to identities that are none."""
    text = (
        "Message rejected: Email address is not verified. The following identities failed the "
        f"check in region {region}: {', '.join(addresses)}"
    )
    return 554, text


def test_a_policy_for_one_source_address(rig: SandboxRig) -> None:
    """With aws:SourceIp, mail goes from the listed address and is denied elsewhere."""
    condition = {"IpAddress": {"aws:SourceIp": "127.0.0.5/32"}}
    key = rig.seed(policy=policy({"Condition": condition}))
    login = rig.login(key)

    assert rig.send(login, source="127.0.0.5")[0] == 250
    assert denied(key) == rig.send(login, source="127.0.0.6")
    assert ["127.0.0.5"] == [message.source_address for message in rig.client.inbox()]


def test_an_explicit_deny_for_other_addresses(rig: SandboxRig) -> None:
    """NotIpAddress in a Deny beats the console's Allow."""
    key = rig.seed(
        policy=policy(
            {},
            {"Effect": "Deny", "Condition": {"NotIpAddress": {"aws:SourceIp": ["127.0.0.5/32"]}}},
        )
    )
    login = rig.login(key)

    assert rig.send(login, source="127.0.0.5")[0] == 250
    assert denied(key) == rig.send(login)


def test_a_policy_for_one_sender_domain(rig: SandboxRig) -> None:
    """ses:FromAddress is the address of the From header, not the envelope's."""
    rig.aws("ses").verify_domain_identity(Domain="example.org")
    like = {"StringLike": {"ses:FromAddress": "*@example.com"}}
    key = rig.seed(policy=policy({"Condition": like}))
    login = rig.login(key)

    assert rig.send(login, mail("App <a@example.com>"), envelope_sender="b@example.org")[0] == 250
    assert denied(key, DOMAIN_ARN.replace(".com", ".org")) == rig.send(
        login, mail("a@example.org"), envelope_sender="b@example.com"
    )


@pytest.mark.parametrize(
    ("key_name", "value", "expected"),
    [
        ("ses:FeedbackAddress", "bounce@example.com", 250),
        ("ses:FeedbackAddress", "app@example.com", 554),
        ("ses:FromDisplayName", "The Äpp", 250),
        ("ses:FromDisplayName", "Another", 554),
        ("aws:SecureTransport", "true", 250),
        ("ses:ApiVersion", "2", 250),
        ("aws:UserAgent", "x", 554),
        ("aws:SourceVpce", "vpce-1", 554),
    ],
)
def test_the_other_condition_keys(
    rig: SandboxRig, key_name: str, value: str, expected: int
) -> None:
    """Each key has the value that SES would see, or none."""
    operator = "Bool" if value == "true" else "StringEquals"
    login = rig.login(rig.seed(policy=policy({"Condition": {operator: {key_name: value}}})))
    content = mail("=?utf-8?q?The_=C3=84pp?= <app@example.com>")

    code, _ = rig.send(login, content, envelope_sender="bounce@example.com")

    assert expected == code


def test_a_policy_on_recipients(rig: SandboxRig) -> None:
    """ForAllValues on ses:Recipients keeps mail inside a domain."""
    condition = {"ForAllValues:StringLike": {"ses:Recipients": "*@example.net"}}
    login = rig.login(rig.seed(policy=policy({"Condition": condition})))

    assert rig.send(login, recipients=("a@example.net", "b@example.net"))[0] == 250
    assert rig.send(login, recipients=("a@example.net", "b@example.org"))[0] == 554


def test_a_policy_until_a_date(rig: SandboxRig) -> None:
    """aws:CurrentTime is the present."""
    past = {"DateLessThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}
    future = {"DateLessThan": {"aws:CurrentTime": "2999-01-01T00:00:00Z"}}
    login = rig.login(rig.seed(policy=policy({"Condition": past})))

    before = rig.send(login)[0]
    _put_policy(rig, policy({"Condition": future}))

    assert before == 554
    assert rig.send(login)[0] == 250


def test_a_user_without_a_policy_may_log_in_and_not_send(rig: SandboxRig) -> None:
    """AUTH succeeds from anywhere; the block is at send time."""
    key = rig.seed()
    rig.aws("iam").delete_user_policy(UserName=key.user_name, PolicyName="AmazonSesSendingAccess")

    assert denied(key) == rig.send(rig.login(key))


def test_attached_and_group_policies_count(rig: SandboxRig) -> None:
    """A managed policy and the policies of a group apply to the user like its own."""
    key = rig.seed(policy=policy({"Action": "s3:GetObject"}))
    login, iam = rig.login(key), rig.aws("iam")
    document = json.dumps(policy({}))
    assert rig.send(login)[0] == 554

    managed = iam.create_policy(PolicyName="send", PolicyDocument=document)["Policy"]["Arn"]
    iam.attach_user_policy(UserName=key.user_name, PolicyArn=managed)
    assert rig.send(login)[0] == 250
    iam.detach_user_policy(UserName=key.user_name, PolicyArn=managed)
    assert rig.send(login)[0] == 554

    iam.create_group(GroupName="senders")
    iam.add_user_to_group(GroupName="senders", UserName=key.user_name)
    iam.put_group_policy(GroupName="senders", PolicyName="send", PolicyDocument=document)
    assert rig.send(login)[0] == 250
    deny = json.dumps(policy({"Effect": "Deny"}))
    iam.put_group_policy(GroupName="senders", PolicyName="stop", PolicyDocument=deny)
    assert rig.send(login)[0] == 554


def test_only_the_default_version_of_a_managed_policy_counts(rig: SandboxRig) -> None:
    """A further version takes effect when it becomes the default."""
    key = rig.seed(policy=policy({"Action": "s3:GetObject"}))
    login, iam = rig.login(key), rig.aws("iam")
    arn = iam.create_policy(PolicyName="p", PolicyDocument=json.dumps(policy({})))["Policy"]["Arn"]
    iam.attach_user_policy(UserName=key.user_name, PolicyArn=arn)
    deny = json.dumps(policy({"Effect": "Deny"}))
    iam.create_policy_version(PolicyArn=arn, PolicyDocument=deny, SetAsDefault=False)

    before = rig.send(login)[0]
    iam.set_default_policy_version(PolicyArn=arn, VersionId="v2")

    assert before == 250
    assert rig.send(login)[0] == 554


def test_a_policy_on_one_identity(rig: SandboxRig) -> None:
    """The Resource is the identity that covers the From address: the address before the domain."""
    ses = rig.aws("ses")
    ses.verify_domain_identity(Domain="example.org")
    key = rig.seed(policy=policy({"Resource": DOMAIN_ARN}))
    login = rig.login(key)

    assert rig.send(login)[0] == 250
    assert denied(key, DOMAIN_ARN.replace(".com", ".org")) == rig.send(login, mail("a@example.org"))
    ses.verify_email_identity(EmailAddress="app@example.com")
    assert denied(key, DOMAIN_ARN.replace("example.com", "app@example.com")) == rig.send(login)


def test_a_configuration_set_is_a_resource_too(rig: SandboxRig) -> None:
    """A set that is used must be allowed, whether the header or the identity names it."""
    rig.aws("sesv2").create_configuration_set(ConfigurationSetName="main")
    key = rig.seed(policy=policy({"Resource": DOMAIN_ARN}))
    login = rig.login(key)
    with_set = mail(headers={"X-SES-CONFIGURATION-SET": "main"})

    assert denied(key, SET_ARN) == rig.send(login, with_set)
    _put_policy(rig, policy({"Resource": [DOMAIN_ARN, SET_ARN]}))
    assert rig.send(login, with_set)[0] == 250
    assert denied(key, SET_ARN.replace("main", "other")) == rig.send(
        login, mail(headers={"X-SES-CONFIGURATION-SET": "other"})
    )


def test_a_configuration_set_that_is_not_there(rig: SandboxRig) -> None:
    """Naming a set that does not exist costs the message."""
    content = mail(headers={"X-SES-CONFIGURATION-SET": "main"})

    assert rig.send(rig.login(), content) == (
        554,
        "Message rejected: Configuration set <main> does not exist.",
    )


def test_the_configuration_set_and_tags_are_kept_and_taken_out(rig: SandboxRig) -> None:
    """The record has what the headers said; the delivered message has not the headers."""
    rig.aws("sesv2").create_configuration_set(ConfigurationSetName="main")
    headers = {"X-SES-CONFIGURATION-SET": "main", "X-SES-MESSAGE-TAGS": "app=wp, host=web-1"}

    rig.send(rig.login(), mail(headers=headers))

    (message,) = rig.client.inbox()
    assert message.configuration_set == "main"
    assert {"app": "wp", "host": "web-1"} == message.tags
    assert message.header("X-SES-MESSAGE-TAGS") == "app=wp, host=web-1"
    assert mail() == rig.client.raw_message(message.id)


def test_the_default_configuration_set_of_an_identity(rig: SandboxRig) -> None:
    """Mail without the header uses the identity's set; a header overrides it."""
    login, ses = rig.login(), rig.aws("sesv2")
    for name in ("main", "other"):
        ses.create_configuration_set(ConfigurationSetName=name)
    ses.put_email_identity_configuration_set_attributes(
        EmailIdentity="example.com", ConfigurationSetName="main"
    )

    rig.send(login)
    rig.send(login, mail(headers={"X-SES-CONFIGURATION-SET": "other"}))
    ses.put_email_identity_configuration_set_attributes(EmailIdentity="example.com")
    rig.send(login)

    assert ["main", "other", None] == [item.configuration_set for item in rig.client.inbox()]


@pytest.mark.parametrize(
    ("sender", "envelope_sender", "failed"),
    [
        ("a@example.org", "app@example.com", ["a@example.org"]),
        ("app@example.com", "a@example.org", ["a@example.org"]),
        ("a@example.org, b@example.com", "c@example.net", ["a@example.org", "c@example.net"]),
        ("a@notexample.com", "a@notexample.com", ["a@notexample.com"]),
    ],
)
def test_identities_that_are_not_verified(
    rig: SandboxRig, sender: str, envelope_sender: str, failed: list[str]
) -> None:
    """From and Return-Path must be verified; the reply names each address that is not."""
    reply = rig.send(rig.login(), mail(sender), envelope_sender=envelope_sender)

    assert unverified(*failed) == reply


def test_a_sender_header_must_be_verified_too(rig: SandboxRig) -> None:
    """Sender is checked beside From."""
    content = mail(headers={"Sender": "x@example.org"})

    assert unverified("x@example.org") == rig.send(rig.login(), content)


@pytest.mark.parametrize(
    "sender", ["a@example.com", "a@EXAMPLE.COM", "a@sub.example.com", "a@a.b.example.com"]
)
def test_a_domain_covers_its_addresses_and_subdomains(rig: SandboxRig, sender: str) -> None:
    """Verifying a domain is enough for every address below it, in any case."""
    assert rig.send(rig.login(), mail(sender), envelope_sender=sender)[0] == 250


def test_an_address_identity_covers_only_itself(rig: SandboxRig) -> None:
    """Verifying one address is enough for that one."""
    login = rig.login()
    rig.aws("ses").delete_identity(Identity="example.com")
    rig.aws("ses").verify_email_identity(EmailAddress="app@example.com")

    assert rig.send(login)[0] == 250
    assert unverified("b@example.com") == rig.send(login, mail("b@example.com"))


def test_recipients_without_production_access(rig: SandboxRig) -> None:
    """A new account sends to verified addresses and to the mailbox simulator only."""
    login = rig.login()
    rig.client.configure(production_access=False)
    simulator = ("success@simulator.amazonses.com", "bounce@simulator.amazonses.com")

    assert unverified("user@example.net") == rig.send(login)
    assert rig.send(login, recipients=("b@example.com", *simulator))[0] == 250


def test_policy_on_recipients_identity_without_production_access(rig: SandboxRig) -> None:
    """Then a verified recipient's identity is a resource as well."""
    rig.aws("ses").verify_email_identity(EmailAddress="user@example.net")
    rig.client.configure(production_access=False)
    key = rig.seed(policy=policy({"Resource": DOMAIN_ARN}))

    assert denied(key, DOMAIN_ARN.replace("example.com", "user@example.net")) == rig.send(
        rig.login(key)
    )


def test_a_paused_account(rig: SandboxRig) -> None:
    """While the account is paused every message is refused for good; another region is not."""
    login, ses = rig.login(), rig.aws("sesv2")
    paused = (
        "Message rejected: Sending paused for this account. For more information, please check "
        "the inbox of the email address associated with your AWS account."
    )

    rig.aws("sesv2", region_name="eu-west-1").put_account_sending_attributes(SendingEnabled=False)
    assert rig.send(login)[0] == 250
    ses.put_account_sending_attributes(SendingEnabled=False)
    assert (554, paused) == rig.send(login)
    assert not rig.client.status().sending_enabled
    ses.put_account_sending_attributes(SendingEnabled=True)
    assert rig.send(login)[0] == 250


def test_a_paused_configuration_set(rig: SandboxRig) -> None:
    """Only mail that uses the set is refused."""
    login, ses = rig.login(), rig.aws("sesv2")
    ses.create_configuration_set(ConfigurationSetName="main")
    ses.put_configuration_set_sending_options(ConfigurationSetName="main", SendingEnabled=False)
    with_set = mail(headers={"X-SES-CONFIGURATION-SET": "main"})

    assert rig.send(login, with_set) == (
        554,
        "Message rejected: Sending paused for configuration set <main>.",
    )
    assert rig.send(login)[0] == 250


def test_the_sending_rate(rig: SandboxRig) -> None:
    """Beyond the rate there is a temporary failure."""
    login = rig.login()
    rig.client.configure(max_send_rate=2)
    with rig.session(login) as connection:
        replies = [transaction(connection) for _ in range(3)]

    assert [250, 250, 454] == [code for code, _ in replies]
    assert replies[2][1] == "Throttling failure: Maximum sending rate exceeded"


def test_the_daily_quota(rig: SandboxRig) -> None:
    """Beyond the daily quota there is a temporary failure; refused mail does not count."""
    login = rig.login()
    rig.client.configure(max_24_hour_send=3)

    assert rig.send(login, recipients=("a@x.org", "b@x.org"))[0] == 250
    assert rig.send(login, recipients=("a@x.org", "b@x.org")) == (
        454,
        "Throttling failure: Daily message quota exceeded",
    )
    assert rig.send(login)[0] == 250


def test_the_log_says_which_policy_denied(rig: SandboxRig) -> None:
    """The reason that SES keeps to itself is in the sandbox's log."""
    key = rig.seed(policy=policy({"Condition": {"NumericLessThan": {"aws:EpochTime": "1"}}}))

    assert denied(key) == rig.send(rig.login(key))
    log = (rig.info.ca_file.parent / "sandbox.log").read_text()
    assert "policy AmazonSesSendingAccess has something unknown: condition operator Num" in log


def _put_policy(rig: SandboxRig, document: dict[str, Any]) -> None:
    rig.aws("iam").put_user_policy(
        UserName="ses-smtp-user.20240101-101010",
        PolicyName="AmazonSesSendingAccess",
        PolicyDocument=json.dumps(document),
    )
