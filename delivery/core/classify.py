"""What an SMTP reply means: from a stage, a code and a text to an Outcome.

One table decides, read from the top, first match wins. It prefers the enhanced status code (RFC 3463) where there is
one of the same class as the reply, and judges by the basic code or by known words only where that says more. It knows
neither connections nor how often an envelope was tried, and no reply it does not recognise declares an address dead.
"""

import re
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from delivery.core.envelope import Kind, Outcome
from delivery.core.meaning import (
    DEAD,
    ENGINE,
    LONGEST_WAIT,
    MESSAGE,
    QUOTA_USED,
    SLOWER,
    THIS_MAILBOX,
    TROUBLE,
    UNUSUAL_RATE,
    UNWILLING,
    Meaning,
)


class Stage(StrEnum):
    """What a reply answers."""

    GREETING = "greeting"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    DOT = "dot"  # the end of the content: the only reply that accepts a mail
    RSET = "rset"
    QUIT = "quit"


LOGGING_ON = (Stage.GREETING, Stage.EHLO, Stage.STARTTLS, Stage.AUTH)
FROM_RCPT_ON = (Stage.RCPT, Stage.DATA, Stage.DOT)
NO_STATUS = ("",)

DAILY_QUOTA = r"daily (user )?(message|sending|mail|email) (quota|limit)|maximum credits exceeded"
TOO_FAST = (
    r"maximum sending rate|too much mail|too many (concurrent |simultaneous )?(connections|sessions|messages|mails"
    r"|emails|recipients)|concurrent connections? limit|rate.?limit|receiving (mail|email) (at a rate|too)|throttl"
    r"|slow down|storedrv\.clientsubmit"
)
BAD_SENDER = r"sender (address )?(rejected|denied|verify failed|not owned)|not owned by user|address is not verified"
NOT_LET_IN = (
    r"relay(ing)? (access )?(is )?(denied|not permitted|not allowed|prohibited)|(unable|not able|cannot) to relay"
    r"|authentication (is )?required"
)
BAD_REPUTATION = r"spamhaus|\bdnsbl\b|\brbl\b|bl(o|a)ck ?list|poor reputation|\bspf\b|\bdkim\b|\bdmarc\b|\bptr\b"
NO_SUCH_USER = r"no such (user|mailbox|recipient)|(user|recipient|mailbox) (is )?unknown|unknown (user|recipient)"
FULL = r"mailbox (is )?full|over ?quota|quota exceeded|insufficient (disk )?space|storage"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: every condition given must hold.

    A code of one digit stands for its class. A status may end in `*`; NO_STATUS means that the reply bears none.
    """

    meaning: Meaning
    codes: tuple[int, ...] = ()
    status: tuple[str, ...] = ()
    stages: tuple[Stage, ...] = ()
    words: str = ""

    def matches(self, stage: Stage, code: int, status: str, text: str) -> bool:
        """Whether this row is about that reply."""
        return (
            (not self.stages or stage in self.stages)
            and (not self.codes or code in self.codes or code // 100 in self.codes)
            and (not self.status or any(_covers(pattern, status) for pattern in self.status))
            and (not self.words or re.search(self.words, text, re.IGNORECASE) is not None)
        )


def _covers(pattern: str, status: str) -> bool:
    return status.startswith(pattern[:-1]) if pattern.endswith("*") else status == pattern


TABLE = (
    # A used quota and a pace too fast: some servers say so with a 5xx, or in words alone.
    Row(QUOTA_USED, status=("5.4.5",)),
    Row(QUOTA_USED, status=("5.7.1",), words=r"daily|quota"),
    Row(QUOTA_USED, words=DAILY_QUOTA),
    Row(UNUSUAL_RATE, status=("4.7.28",)),
    Row(THIS_MAILBOX, codes=(4,), words=r"gr[ae]y ?list", stages=FROM_RCPT_ON),
    Row(SLOWER, codes=(4,), words=TOO_FAST),
    Row(SLOWER, codes=(552,), words=r"too many recipients"),  # RFC 5321 §4.5.3.1.10: to be read as 452
    Row(SLOWER, codes=(550,), status=("5.2.1",), words=TOO_FAST),
    Row(SLOWER, codes=(421,), status=("4.7.*",)),
    Row(SLOWER, codes=(432,), status=("4.3.2",)),
    Row(SLOWER, codes=(450,), status=("4.2.1",)),
    Row(SLOWER, codes=(451,), status=("4.7.*",)),
    Row(SLOWER, status=("4.5.3",)),
    # Before the first envelope there is only the engine to blame.
    Row(TROUBLE, codes=(4,), stages=LOGGING_ON),
    Row(ENGINE, codes=(5,), stages=LOGGING_ON),
    # Login, relay and envelope sender. Postfix delays what it has against a sender until RCPT, with 5.1.x codes.
    Row(ENGINE, codes=(521, 530, 534, 535, 538)),
    Row(ENGINE, codes=(5,), words=BAD_SENDER),
    Row(ENGINE, codes=(5,), words=NOT_LET_IN),
    Row(ENGINE, status=("5.1.7", "5.1.8")),
    Row(ENGINE, status=("5.1.*", "5.7.*"), stages=(Stage.MAIL,)),
    Row(ENGINE, codes=(550, 551, 553, 554), status=NO_STATUS, stages=(Stage.MAIL,)),
    # Our reputation at the destination.
    Row(ENGINE, status=("5.7.1", "5.7.23", "5.7.24", "5.7.25", "5.7.26", "5.7.27")),
    Row(ENGINE, status=("5.7.29", "5.7.30", "5.7.31", "5.7.32", "5.7.40", "5.7.515")),
    Row(ENGINE, codes=(550, 553, 554), status=NO_STATUS, words=BAD_REPUTATION),
    # The recipient.
    Row(DEAD, status=("5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10"), stages=FROM_RCPT_ON),
    Row(DEAD, codes=(550,), status=("5.2.1",), stages=FROM_RCPT_ON),
    Row(DEAD, codes=(550, 551, 553), status=NO_STATUS, stages=(Stage.RCPT,), words=NO_SUCH_USER),
    Row(THIS_MAILBOX, status=("4.2.*", "5.2.2")),
    Row(THIS_MAILBOX, codes=(552,), status=NO_STATUS, stages=(Stage.RCPT,)),
    Row(THIS_MAILBOX, codes=(552,), status=NO_STATUS, stages=(Stage.DATA, Stage.DOT), words=FULL),
    Row(THIS_MAILBOX, codes=(450,), stages=(Stage.RCPT,)),
    Row(THIS_MAILBOX, status=("4.1.*",), stages=(Stage.RCPT,)),
    Row(UNWILLING, codes=(551, 556)),
    Row(UNWILLING, codes=(550, 553), status=NO_STATUS, stages=(Stage.RCPT,)),
    # What is left: size, content, syntax, and everything nobody has a row for.
    Row(TROUBLE, codes=(4,)),
    Row(MESSAGE, codes=(5,)),
)

_STATUS = re.compile(r"#?([245])\.(\d{1,3})\.(\d{1,3})(?=\s|$)")
_PROVIDER_ID = re.compile(
    r"queued as <?([^\s<>]+)"  # Postfix, SendGrid
    r"|\bid=<?([^\s<>]+)"  # Exim
    r"|^<([^\s<>]+)> \[InternalId="  # Exchange
    r"|^ok +([^\s=:]*\d[^\s=:]*)$"  # SES
    r"|^ok +\d+ (\S+) - gsmtp$",  # Gmail
    re.IGNORECASE,
)
_WAIT = re.compile(
    r"\b(?:in|for|after|wait)\s+(\d{1,6})\s*(s|secs?|seconds?|m|mins?|minutes?|h|hours?)\b", re.IGNORECASE
)
_SECONDS = {"s": 1, "m": 60, "h": 3600}


def classify_reply(stage: Stage, code: int, text: str) -> Outcome:
    """What came of an envelope whose `stage` was answered with `code` and `text`.

    `text` is all that followed the code, the lines of a longer reply joined by newlines. Only a 2xx to the final dot
    accepts. A 2xx or 3xx where it makes no sense is UNKNOWN after the dot and TRANSIENT before it.
    """
    family = code // 100
    status = _status(family, text)
    words = _words(text, status)
    label = f"{code} {status}" if status else str(code)
    if family == 2 and stage is Stage.DOT:
        return Outcome(Kind.ACCEPTED, label, words, provider_id=_provider_id(words))
    if family not in (4, 5):
        return Outcome(Kind.UNKNOWN if stage is Stage.DOT else Kind.TRANSIENT, label, words)

    meaning = next(row.meaning for row in TABLE if row.matches(stage, code, status, words))
    return Outcome(
        meaning.kind,
        label,
        words,
        retry_after=_retry_after(meaning, words),
        hard=meaning.hard,
        faults_engine=meaning.faults_engine,
    )


def _status(family: int, text: str) -> str:
    """The enhanced code of the last line, or "" when it has none or one that contradicts the reply's own class."""
    match = _STATUS.match(text, text.rfind("\n") + 1)
    if match is None or int(match[1]) != family:
        return ""
    return match[0].removeprefix("#")


def _words(text: str, status: str) -> str:
    """The reply's lines as one, without the enhanced code each of them may repeat."""
    lines = (line.strip().removeprefix("#").removeprefix(status) if status else line for line in text.split("\n"))
    return " ".join(filter(None, map(str.strip, lines)))


def _provider_id(words: str) -> str:
    match = _PROVIDER_ID.search(words)
    return match[match.lastindex or 0] if match else ""


def _retry_after(meaning: Meaning, words: str) -> timedelta | None:
    if meaning.kind not in (Kind.THROTTLED, Kind.TRANSIENT):
        return None
    match = _WAIT.search(words)
    if match is None:
        return meaning.wait
    return min(timedelta(seconds=int(match[1]) * _SECONDS[match[2][0].lower()]), LONGEST_WAIT)
