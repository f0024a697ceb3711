"""
CloudTrail: a recorder of the management calls that pass, and LookupEvents over it.

An event is recorded after the call was answered, with its error code if it failed. As in AWS, the
events of IAM and of the global STS endpoint are found in us-east-1 and the others in their own
region, sends (data events) are not recorded, and sends by SMTP never are. Of the parameters only
names and states are kept (`_SHOWN_PARAMETERS`), never a document or a value that may be secret.

LookupEvents: one attribute (AccessKeyId, EventId, EventName, EventSource, ReadOnly, Username),
StartTime and EndTime, newest first, at most 50 a page; the token holds its place while new events
come in. Left out: the delay of minutes, the 90 days, resources, response elements, the rate limit.

Known fault: only calls that `sesguard.sandbox.calls` can read are recorded, so S3, Lambda and other
REST services are missing.
"""

import json
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

from sesguard.sandbox.accounts import Principal
from sesguard.sandbox.calls import Answer, ApiCall, answer, error_answer
from sesguard.sandbox.model import ACCOUNT_ID

MAX_EVENTS: Final = 50_000
PAGE_SIZE: Final = 50

_GLOBAL_SERVICES: Final = frozenset({"iam"})
_GLOBAL_REGION: Final = "us-east-1"
_DATA_OPERATIONS: Final = frozenset(
    {
        "SendEmail",
        "SendRawEmail",
        "SendTemplatedEmail",
        "SendBulkTemplatedEmail",
        "SendBulkEmail",
        "Publish",
        "SendMessage",
        "ReceiveMessage",
        "DeleteMessage",
        "GetItem",
        "PutItem",
        "UpdateItem",
        "DeleteItem",
        "Query",
        "Scan",
    }
)
_READ_PREFIXES: Final = ("Get", "List", "Describe", "Lookup", "Simulate")
_SHOWN_PARAMETERS: Final = (
    "AccessKeyId",
    "ConfigurationSetName",
    "EmailIdentity",
    "Enabled",
    "GroupName",
    "Identity",
    "PolicyArn",
    "PolicyName",
    "SecretId",
    "SendingEnabled",
    "Status",
    "UserName",
)
_ATTRIBUTES: Final = frozenset(
    {"AccessKeyId", "EventId", "EventName", "EventSource", "ReadOnly", "Username"}
)


@dataclass(frozen=True, slots=True)
class _Event:
    number: int
    region: str
    time: float
    fields: dict[str, str]
    """The attributes that can be looked up."""
    document: str
    """The CloudTrailEvent, as JSON."""


class Trail:
    """Records calls and looks them up; the oldest beyond `MAX_EVENTS` are forgotten."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._events: deque[_Event] = deque(maxlen=MAX_EVENTS)
        self._next_number = 1

    def record(self, call: ApiCall, principal: Principal | None, error_code: str | None) -> None:
        """Write down a call of `principal` (None: the root of the account)."""
        if call.operation in _DATA_OPERATIONS:
            return
        now = self._clock()
        fields = {
            "AccessKeyId": call.access_key_id,
            "EventId": str(uuid4()),
            "EventName": call.operation,
            "EventSource": f"{call.service.removesuffix('v2')}.amazonaws.com",
            "ReadOnly": str(call.operation.startswith(_READ_PREFIXES)).lower(),
            "Username": principal.user_name if principal is not None else "root",
        }
        region = _GLOBAL_REGION if call.service in _GLOBAL_SERVICES else call.region
        document = _document(call, principal, fields, region, now, error_code)
        with self._lock:
            self._events.append(_Event(self._next_number, region, now, fields, document))
            self._next_number += 1

    def lookup(self, call: ApiCall) -> Answer:
        """Answer LookupEvents."""
        attributes = call.parameters.get("LookupAttributes", [])
        if len(attributes) > 1 or any(
            item.get("AttributeKey") not in _ATTRIBUTES for item in attributes
        ):
            return error_answer(
                call, 400, "InvalidLookupAttributesException", "One known attribute is allowed."
            )
        token = str(call.parameters.get("NextToken", self._next_number))
        size = call.parameters.get("MaxResults", PAGE_SIZE)
        if not token.isdecimal():
            return error_answer(call, 400, "InvalidNextTokenException", "Invalid token.")
        if not isinstance(size, int) or not 1 <= size <= PAGE_SIZE:
            return error_answer(call, 400, "InvalidMaxResultsException", "From 1 to 50.")
        found = self._find(call, int(token))
        result: dict[str, Any] = {"Events": [_as_listed(event) for event in found[:size]]}
        if len(found) > size:
            result["NextToken"] = str(found[size - 1].number)
        return answer(call, result)

    def clear(self) -> None:
        """Forget every event."""
        with self._lock:
            self._events.clear()

    def _find(self, call: ApiCall, before: int) -> list[_Event]:
        start = call.parameters.get("StartTime", 0)
        end = call.parameters.get("EndTime", float("inf"))
        wanted = {
            item["AttributeKey"]: item.get("AttributeValue")
            for item in call.parameters.get("LookupAttributes", [])
        }
        with self._lock:
            events = list(self._events)
        return [
            event
            for event in reversed(events)
            if event.number < before
            and event.region == call.region
            and start <= event.time <= end
            and wanted.items() <= event.fields.items()
        ]


def _document(
    call: ApiCall,
    principal: Principal | None,
    fields: dict[str, str],
    region: str,
    now: float,
    error_code: str | None,
) -> str:
    document: dict[str, Any] = {
        "eventVersion": "1.11",
        "userIdentity": _user_identity(call, principal),
        "eventTime": datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "eventSource": fields["EventSource"],
        "eventName": call.operation,
        "awsRegion": region,
        "sourceIPAddress": call.source_address,
        "userAgent": call.user_agent,
        "requestParameters": _shown_parameters(call),
        "responseElements": None,
        "eventID": fields["EventId"],
        "readOnly": fields["ReadOnly"] == "true",
        "eventType": "AwsApiCall",
        "managementEvent": True,
        "recipientAccountId": ACCOUNT_ID,
        "eventCategory": "Management",
    }
    if error_code is not None:
        document["errorCode"] = error_code
    return json.dumps(document)


def _user_identity(call: ApiCall, principal: Principal | None) -> dict[str, str]:
    identity = {"accountId": ACCOUNT_ID, "accessKeyId": call.access_key_id}
    if principal is None:
        return {"type": "Root", "arn": f"arn:aws:iam::{ACCOUNT_ID}:root", **identity}
    return {
        "type": "IAMUser",
        "arn": principal.arn,
        "userName": principal.user_name,
        **identity,
    }


def _shown_parameters(call: ApiCall) -> dict[str, Any] | None:
    shown = {
        name[0].lower() + name[1:]: call.parameters[name]
        for name in _SHOWN_PARAMETERS
        if name in call.parameters
    }
    return shown or None


def _as_listed(event: _Event) -> dict[str, Any]:
    return {**event.fields, "EventTime": event.time, "CloudTrailEvent": event.document}
