"""What a load test asks for: which triggers, how many, how many at once. All of it is bounded."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from campaigns.overrides import MOST_RECIPIENTS

MOST_COUNT = 100_000
MOST_AT_ONCE = 500
MOST_SECONDS = 600
MOST_MAILS = 1_000_000
MOST_PAYLOAD = 10 * 1024 * 1024  # octets, as the API takes them
OURS = ("wait", "test", "callback_url")

SYNC, ASYNC = "sync", "async"


class BadPlan(ValueError):
    """What is wrong with it, and what would be right."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`count` triggers of a workflow, `at_once` under way; none begins after `seconds`. `wait`: how long each may wait
    for its run, if it waits. `recipients`: how many are made up, if any; else they are the payload's, or the
    audience's, of whom a test takes one. `real`: mails go out, and not into the sandbox."""

    mode: str
    workflow: str
    count: int = 1000
    at_once: int = 50
    seconds: float = MOST_SECONDS
    wait: float = 30.0
    recipients: int | None = None
    payload: Mapping[str, object] = field(default_factory=dict)
    real: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[-A-Za-z0-9_]{1,100}", self.workflow):
            raise BadPlan("--workflow takes the slug or the id of a workflow. A good one: --workflow newsletter")
        _within("--count", self.count, 1, MOST_COUNT)
        _within("--concurrency", self.at_once, 1, MOST_AT_ONCE)
        _within("--seconds", self.seconds, 1, MOST_SECONDS)
        _within("--wait", self.wait, 1, 60)
        if self.recipients is not None:
            _within("--recipients", self.recipients, 1, MOST_RECIPIENTS)
        if ours := [name for name in OURS if name in self.payload]:
            raise BadPlan(f"--payload: {ours[0]} is set by the load test itself (--wait, --send, --callback-listen).")
        if "recipients" in self.payload and self.recipients is not None:
            raise BadPlan("--payload: it has recipients, so --recipients is not needed. Leave one of both out.")
        if self.count * self.mails_each > MOST_MAILS:
            raise BadPlan(
                f"{self.count:,} triggers of {self.mails_each:,} recipients are more than {MOST_MAILS:,} mails: take "
                "fewer of either."
            )

    @property
    def mails_each(self) -> int:
        """Recipients of one trigger, as far as they are known here."""
        rows = self.payload.get("recipients")
        return self.recipients or (len(rows) if isinstance(rows, list) else 1) or 1

    def body(self) -> dict[str, object]:
        """What each trigger says. Only where it is called back differs."""
        said = dict(self.payload)
        if self.recipients is not None:
            said["recipients"] = [
                {"email": f"load-{number}@example.test", "name": f"Load {number}"}
                for number in range(1, self.recipients + 1)
            ]
        if not self.real:
            said["test"] = self.mails_each
        if self.mode == SYNC:
            said["wait"] = self.wait
        return said


class Bodies:
    """The bodies of triggers, written once but for their callback_url."""

    def __init__(self, plan: Plan) -> None:
        self._all = json.dumps(plan.body()).encode()

    def one(self, callback_url: str = "") -> bytes:
        if not callback_url:
            return self._all
        comma = b"" if self._all == b"{}" else b","
        return b"%s%s%s}" % (self._all[:-1], comma, f'"callback_url":{json.dumps(callback_url)}'.encode())


def read_payload(name: str, content: bytes) -> dict[str, object]:
    """The body that a file holds. Raises BadPlan."""
    if len(content) > MOST_PAYLOAD:
        raise BadPlan(f"--payload: {name} has more than {MOST_PAYLOAD // 1024**2} MB.")
    try:
        said = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadPlan(f"--payload: {name} is not JSON: {error}.") from error
    if not isinstance(said, dict):
        raise BadPlan(
            f'--payload: {name} is no JSON object. A good one: {{"recipients": [{{"email": "ada@example.test"}}]}}'
        )
    return said


def _within(option: str, given: float, least: int, most: int) -> None:
    if not least <= given <= most:
        raise BadPlan(f"{option} must be from {least:,} to {most:,}, not {given:,}.")
