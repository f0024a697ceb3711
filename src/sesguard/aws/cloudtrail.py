"""
CloudTrail's event history: what an access key or a user did, in the region of the session.

It has the management events of the last 90 days, some minutes late. The events of IAM are found in
us-east-1 only (`AwsSession.in_region`). Mail that is sent by SMTP is never in it, so an empty
history does not mean that a key was not used.

AWS allows two calls a second, of 50 events each; more are repeated with back-off. Everything raises
the classes of `sesguard.aws.errors`.

Source: the AWS CloudTrail API, LookupEvents; the SES guide, "Logging SES API calls".
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from sesguard.aws.errors import aws_errors
from sesguard.aws.session import AwsSession

PAGE_SIZE: Final = 50


@dataclass(frozen=True, slots=True)
class TrailEvent:
    """One call to AWS."""

    event_id: str
    at: datetime
    name: str
    """Name of the call, such as ``CreateAccessKey``."""
    source: str
    """Name of the service, such as ``iam.amazonaws.com``."""
    document: str
    """The whole event as CloudTrail wrote it, in JSON."""


class TrailEvents:
    """The call."""

    def __init__(self, session: AwsSession) -> None:
        self._session = session

    def lookup(
        self,
        attribute: Literal["AccessKeyId", "Username"],
        value: str,
        *,
        since: datetime | None,
        limit: int,
    ) -> tuple[TrailEvent, ...]:
        """
        Find events, newest first.

        Args:
            attribute: What is compared.
            value: What it must be.
            since: Nothing older, to the second; None for all there is.
            limit: At most so many, 1 or more; older ones are left out.
        """
        options: dict[str, Any] = {} if since is None else {"StartTime": since}
        with aws_errors("cloudtrail:LookupEvents"):
            pages = self._session.cloudtrail.get_paginator("lookup_events").paginate(
                LookupAttributes=[{"AttributeKey": attribute, "AttributeValue": value}],
                PaginationConfig={"MaxItems": limit, "PageSize": min(limit, PAGE_SIZE)},
                **options,
            )
            found = pages.build_full_result()["Events"]
        return tuple(
            TrailEvent(
                event["EventId"],
                event["EventTime"],
                event["EventName"],
                event["EventSource"],
                event["CloudTrailEvent"],
            )
            for event in found
        )
