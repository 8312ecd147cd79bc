"""What an API's answers mean, in lines that an operator writes.

    422: recipient                          a status
    4xx: message                            a class of statuses
    $.error.code=rate_limited: throttled    what stands at a path of the answer
    200 $.errors: message                   a status, and something at that path (not null, false, empty)
    $=false: transient                      the answer itself, or the result of one record

Read from the top, first match wins; what no line is about means what it means in HTTP (`delivery.core.answer`). Values
are compared as text, without regard to case.
"""

import re
from dataclasses import dataclass

from delivery.core.meaning import DEAD, ENGINE, MESSAGE, SLOWER, TAKEN, TROUBLE, UNKNOWN, UNWILLING, Meaning
from delivery.engines.http_api.paths import PATH, Path, find, parse_path, said

CLASSES = {
    "accepted": TAKEN,
    "recipient": UNWILLING,  # refused, and nobody is suppressed
    "suppress": DEAD,
    "message": MESSAGE,
    "engine": ENGINE,
    "throttled": SLOWER,
    "transient": TROUBLE,
    "unknown": UNKNOWN,
}
EXAMPLE = "422: recipient, 4xx: message, $.error.code=rate_limited: throttled"
MOST_RULES = 200
_LINE = re.compile(rf"(?:(\d{{3}}|[1-5]xx)(?:\s+|$))?(?:(\$(?:{PATH})?)\s*(?:=\s*(.*))?)?", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Rule:
    """One line: every condition given must hold. A status of one digit stands for its class; `value` None: something
    stands at the path."""

    meaning: Meaning
    status: int = 0
    path: Path | None = None
    value: str | None = None

    def matches(self, status: int, document: object) -> bool:
        """Whether this line is about that answer."""
        if self.status and self.status not in (status, status // 100):
            return False
        if self.path is None:
            return True
        found = find(document, self.path)
        if self.value is None or found is None:
            return bool(found) if self.value is None else self.value == "null"
        return said(found).casefold() == self.value


def parse_rules(text: str) -> tuple[Rule, ...]:
    """The rules of these lines. Raises ValueError, with a sentence for each line that is none."""
    rules, problems = [], []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            rules.append(_rule(line.strip()))
        except ValueError as error:
            problems.append(f"Rule in line {number}, “{line.strip()}”: {error}")
    if len(rules) > MOST_RULES:
        problems.append(f"There are {len(rules)} rules; {MOST_RULES} are possible.")
    if problems:
        raise ValueError("\n".join(problems))
    return tuple(rules)


def _rule(line: str) -> Rule:
    condition, _, word = line.rpartition(":")
    meaning = CLASSES.get(word.strip().lower())
    if meaning is None:
        raise ValueError(f"after the last colon stands what it means, one of {', '.join(CLASSES)}.")
    found = _LINE.fullmatch(condition.strip())
    if not found or not any(found.groups()):
        raise ValueError(
            "before the colon stands a status, a path of the answer, or both, such as “422”, “4xx”, “$.error.code=gone”"
            " or “200 $.errors”."
        )
    status, path, value = found.groups()
    return Rule(
        meaning,
        status=int(status[0] if status[1:].lower() == "xx" else status) if status else 0,
        path=parse_path(path) if path else None,
        value=None if value is None else value.strip().strip("\"'").casefold(),
    )
