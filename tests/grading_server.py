"""An endpoint that gives inbound emails, takes the answers, and grades what it received. On loopback, in threads.

    python -m tests.grading_server --port 8400 --emails 100 --seed 1

`GET /emails?test=true` gives the emails; their deadlines count from then. `POST /responses` takes `{"id", "subject",
"body"}`. Both want the key in the header X-Api-Key. What the records of a round are worth is said by `graded`, which
knows no socket and no clock: instants are nanoseconds of `time.monotonic_ns()`, and only what is written for clients is
wall-clock time, by both clocks read at once.
"""

import argparse
import json
import random
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

SECOND = 1_000_000_000  # nanoseconds
KEY_HEADER = "X-Api-Key"
KEY = "demonstration-key"
EARLIEST = 0.6  # seconds before its deadline that an answer may come
GAP = 0.0001  # seconds between an answered email and the answers that waited for it
LATENCY = 0.05  # seconds until an answer is answered
SPACING = 0.15  # seconds from a deadline to those that depend on it: LATENCY, the gap, and a busy machine
DEEPEST = 5  # emails in a chain
FEW = 3  # emails that may depend on one that is refused
LISTED = 10  # of each kind of finding, in the report
GRACE = 10.0  # seconds after the last deadline, after which nothing is waited for

SUBJECTS = ("Where is my order?", "Prices for 2027", "Ihre Rechnung Nr. 17", "Café opening hours", "A question, again")
BODIES = (
    "Hello,\n\nI ordered two weeks ago and have heard nothing since. Could you look into it?\n\nAda",
    "Guten Tag,\n\nauf der Rechnung steht die falsche Anschrift.\n\nGrüße, Käthe",
    'As I wrote before: "yes" to both, {{ and }} <no> to the third & last.\n',
    "こんにちは。見積もりをお願いします。",
)


# ---- emails ----


@dataclass(frozen=True, slots=True)
class Email:
    """One inbound email. `due`: its deadline in seconds after the list was asked for. `after`: those that must be
    answered before. `written`: how it says so, a list or a text with commas; None: not at all."""

    id: str
    subject: str = "A question"
    body: str = "What is it?"
    due: float = 10.0
    after: tuple[str, ...] = ()
    written: list[str] | str | None = None

    def as_json(self, asked_at: datetime) -> dict[str, object]:
        """As the list shows it."""
        deadline = asked_at + timedelta(seconds=self.due)
        item = {"id": self.id, "subject": self.subject, "body": self.body, "deadline": deadline.isoformat()}
        return item if self.written is None else item | {"dependencies": self.written}


def inbox(
    count: int, rng: random.Random, *, first: float = 10.0, spread: float = 10.0, spacing: float = SPACING
) -> list[Email]:
    """So many emails in no order, with deadlines that can be kept: the first after `first` seconds, most within the
    `spread` after it, and each at least `spacing` after those it depends on."""
    made: list[Email] = []
    depth: dict[str, int] = {}
    for number in range(1, count + 1):
        shallow = [email for email in made if depth[email.id] < DEEPEST]
        after = rng.sample(shallow, min(len(shallow), rng.choice((0, 0, 0, 1, 1, 2, 3))))
        name = f"mail-{number:03}"
        depth[name] = 1 + max((depth[email.id] for email in after), default=0)
        due = max([first + rng.uniform(0, spread), *(email.due + spacing for email in after)])
        names = tuple(email.id for email in after)
        made.append(Email(name, rng.choice(SUBJECTS), rng.choice(BODIES), due, names, _written(names, rng)))
    rng.shuffle(made)
    return made


def _written(names: Sequence[str], rng: random.Random) -> list[str] | str | None:
    return rng.choice([list(names), ", ".join(names), *([None] if not names else [])])


def ancestors(emails: Iterable[Email]) -> dict[str, frozenset[str]]:
    """By email, all that must be answered before it, however many steps away."""
    after = {email.id: email.after for email in emails}
    found: dict[str, frozenset[str]] = {}

    def of(name: str) -> frozenset[str]:
        if name not in found:
            found[name] = frozenset(after[name]).union(*(of(each) for each in after[name]))
        return found[name]

    for name in after:
        of(name)
    return found


def dependents(emails: Iterable[Email]) -> dict[str, frozenset[str]]:
    """By email, all that must be answered after it, however many steps away."""
    before = ancestors(emails)
    return {name: frozenset(other for other in before if name in before[other]) for name in before}


# ---- grading ----


@dataclass(frozen=True, slots=True)
class Posted:
    """One answer as it was received: when its first octets had been read, when it began to be answered, and with what.
    `id` is "" when there was none that could be read."""

    id: str
    arrived: int
    answered: int
    status: int = 200
    key_fits: bool = True
    body: str = "Dear customer, …"

    @property
    def is_final(self) -> bool:
        """Whether nothing more is wanted: it was taken, or refused for good."""
        return self.key_fits and self.status < 500


@dataclass(frozen=True, slots=True)
class Off:
    """An answer at a wrong time, and by how many seconds."""

    id: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Disorder:
    """An answer that came before it was its turn: so many seconds after `after` was answered, less than the gap. None:
    that one had not been answered when it came, or never was."""

    id: str
    after: str
    seconds: float | None


@dataclass(frozen=True)
class Grade:
    """What a round is worth. FACTS are what happened: `rejected` were refused with 4xx, `skipped` depend on one of
    those and were not sent. Everything else is a finding, and there should be none."""

    FACTS = ("emails", "accepted", "rejected", "skipped")

    emails: int
    accepted: int
    rejected: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    twice: tuple[str, ...] = ()  # sent again after it had been taken or refused for good
    late: tuple[Off, ...] = ()
    early: tuple[Off, ...] = ()
    disorder: tuple[Disorder, ...] = ()
    empty: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()  # ids that no email has
    wrong_key: int = 0

    @property
    def findings(self) -> dict[str, object]:
        """By name, the findings that there are."""
        names = [field.name for field in fields(self) if field.name not in self.FACTS]
        return {name: found for name in names if (found := getattr(self, name))}


def graded(
    emails: Sequence[Email],
    posts: Iterable[Posted],
    asked: int,
    *,
    earliest: float = EARLIEST,
    gap: float = GAP,
    release: bool = False,
) -> Grade:
    """The grade of these posts. `asked`: when the emails were asked for. `earliest`: how many seconds before its
    deadline an answer may come. `release`: what depends on a refused one is wanted all the same."""
    by_id: dict[str, list[Posted]] = {email.id: [] for email in emails}
    strangers, wrong_key = [], 0
    for post in sorted(posts, key=lambda post: post.arrived):
        if not post.key_fits:
            wrong_key += 1
        elif post.id in by_id:
            by_id[post.id].append(post)
        else:
            strangers.append(post.id)
    ends = {name: post for name, tries in by_id.items() for post in [post for post in tries if post.is_final][:1]}
    taken = {name: post for name, post in ends.items() if post.status < 400}
    refused = ends.keys() - taken.keys()
    before = ancestors(emails)
    skipped = {name for name in by_id if not release and not by_id[name] and before[name] & refused}
    deadlines = {email.id: asked + round(email.due * SECOND) for email in emails}
    lateness = {name: (post.arrived - deadlines[name]) / SECOND for name, post in taken.items()}
    earliness = {name: (deadlines[name] - tries[0].arrived) / SECOND for name, tries in by_id.items() if tries}
    return Grade(
        emails=len(emails),
        accepted=len(taken),
        rejected=tuple(sorted(refused)),
        skipped=tuple(sorted(skipped)),
        missing=tuple(sorted(by_id.keys() - ends.keys() - skipped)),
        twice=tuple(sorted(name for name, tries in by_id.items() if any(post.is_final for post in tries[:-1]))),
        late=_beyond(lateness, 0),
        early=_beyond(earliness, earliest),
        disorder=tuple(_disorder(emails, by_id, ends if release else taken, gap)),
        empty=tuple(sorted(name for name, tries in by_id.items() if any(not post.body.strip() for post in tries))),
        unknown=tuple(sorted(strangers)),
        wrong_key=wrong_key,
    )


def _beyond(seconds: Mapping[str, float], most: float) -> tuple[Off, ...]:
    return tuple(Off(name, much) for name, much in sorted(seconds.items()) if much > most)


def _disorder(
    emails: Iterable[Email], by_id: Mapping[str, Sequence[Posted]], done: Mapping[str, Posted], gap: float
) -> Iterator[Disorder]:
    for email in emails:
        for post in by_id[email.id][:1]:  # what holds for its first try holds for the later ones
            for name in email.after:
                waited = post.arrived - done[name].answered if name in done else -1
                if waited < gap * SECOND:
                    yield Disorder(email.id, name, waited / SECOND if waited >= 0 else None)


def waits(posts: Iterable[Posted]) -> dict[str, list[float]]:
    """By id, the seconds from each answer of 5xx to the next try."""
    tries = defaultdict(list)
    for post in sorted(posts, key=lambda post: post.arrived):
        tries[post.id].append(post)
    return {
        name: [(later.arrived - post.answered) / SECOND for post, later in pairwise(found)]
        for name, found in tries.items()
        if len(found) > 1
    }


# ---- the server ----


class GradingServer:
    """The endpoint, for as long as the `with` block lasts.

    `answers`: by id, with which status its first tries are answered; the later ones are taken. The list may be asked
    for again until the first answer has come: its deadlines count from the last time.
    """

    def __init__(
        self,
        emails: Sequence[Email],
        *,
        answers: Mapping[str, Sequence[int]] | None = None,
        key: str = KEY,
        latency: float = LATENCY,
        port: int = 0,
    ) -> None:
        self.emails = list(emails)
        self.key = key
        self.latency = latency
        self._answers = dict(answers or {})
        self._lock = threading.Condition()
        self._tries: Counter[str] = Counter()
        self._posts: list[Posted] = []
        self._asked: tuple[int, datetime] | None = None
        self._server = _Listener(("127.0.0.1", port), _Handler)
        self._server.endpoint = self

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def was_asked(self) -> bool:
        """Whether somebody has asked for the emails."""
        return self._asked is not None

    @property
    def posts(self) -> list[Posted]:
        """What was received up to now."""
        with self._lock:
            return list(self._posts)

    def grade(self, *, earliest: float = EARLIEST, gap: float = GAP, release: bool = False) -> Grade:
        """See `graded`. The emails must have been asked for."""
        assert self._asked, "nobody has asked for the emails"
        return graded(self.emails, self.posts, self._asked[0], earliest=earliest, gap=gap, release=release)

    def await_end(self, grace: float = GRACE) -> None:
        """Returns when every email has been taken or refused, or so many seconds after the last deadline."""
        with self._lock:
            while not self._is_over():
                left = None if self._asked is None else self._end(grace) - time.monotonic_ns()
                if left is not None and left <= 0:
                    return
                # In slices, because on some systems a wait without end is deaf to Ctrl-C.
                self._lock.wait(1.0 if left is None else min(1.0, left / SECOND))

    def _is_over(self) -> bool:
        return {email.id for email in self.emails} <= {post.id for post in self._posts if post.is_final}

    def _end(self, grace: float) -> int:
        return self._asked[0] + round((max(email.due for email in self.emails) + grace) * SECOND)

    # ---- for the handler ----

    def listed(self) -> list[dict[str, object]]:
        """The list for somebody who asks now."""
        with self._lock:
            if not self._posts or self._asked is None:
                before, wall, after = time.monotonic_ns(), datetime.now(UTC), time.monotonic_ns()
                self._asked = ((before + after) // 2, wall)
            return [email.as_json(self._asked[1]) for email in self.emails]

    def next_status(self, name: str) -> int:
        """With what this try is answered."""
        with self._lock:
            number = self._tries[name]
            self._tries[name] += 1
        told = self._answers.get(name, ())
        return told[number] if number < len(told) else 200

    def record(self, post: Posted) -> None:
        with self._lock:
            self._posts.append(post)
            self._lock.notify_all()


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    endpoint: GradingServer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body in one segment
    server: _Listener

    def parse_request(self) -> bool:
        self.arrived = time.monotonic_ns()  # its first line has been read, and nothing of it looked at
        return super().parse_request()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path != "/emails":
            self._say(404, {"error": f"there is no {url.path}; there is /emails"})
        elif not self._key_fits():
            self._say(401, {"error": f"the header {KEY_HEADER} has not the right key"})
        elif parse_qs(url.query).get("test") != ["true"]:
            self._say(400, {"error": "here are only emails for tests: ask for /emails?test=true"})
        else:
            self._say(200, self.server.endpoint.listed())

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path != "/responses":
            self._say(404, {"error": f"there is no {self.path}; there is /responses"})
            return
        name, body = _read(content)
        endpoint = self.server.endpoint
        status = endpoint.next_status(name) if self._key_fits() and name else 401 if name else 400
        time.sleep(endpoint.latency)
        # Before the answer is on its way: a client that is as quick as can be must not seem to have been too quick.
        answered = time.monotonic_ns()
        endpoint.record(Posted(name, self.arrived, answered, status, self._key_fits(), body))
        self._say(status, {"id": name} if status < 400 else {"error": HTTPStatus(status).phrase})

    def _key_fits(self) -> bool:
        return self.headers.get(KEY_HEADER) == self.server.endpoint.key

    def _say(self, status: int, document: object) -> None:
        content = json.dumps(document, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def log_message(self, *args: object) -> None:
        pass


def _read(content: bytes) -> tuple[str, str]:
    """The id and the text of an answer; "" for what is not there."""
    try:
        document = json.loads(content)
    except ValueError:
        return "", ""
    if not isinstance(document, dict):
        return "", ""
    return tuple(str(document[name]) if document.get(name) is not None else "" for name in ("id", "body"))


# ---- by hand ----


def report(grade: Grade) -> str:
    """The grade in lines for a terminal."""
    lines = [f"{grade.accepted} of {grade.emails} answers taken, {len(grade.rejected)} refused, "
             f"{len(grade.skipped)} not sent because of those."]  # fmt: skip
    for name, found in grade.findings.items():
        lines.append(f"{name.replace('_', ' ')}: {len(found) if isinstance(found, tuple) else found}")
        listed = found if isinstance(found, tuple) else ()
        lines.extend(f"    {_in_words(each)}" for each in listed[:LISTED])
        lines.extend(["    …"] * (len(listed) > LISTED))
    return "\n".join([*lines, "Something is to be found above." if grade.findings else "Nothing is to be found."])


def _in_words(finding: object) -> str:
    match finding:
        case Off(name, seconds):
            return f"{name} by {seconds:.3f} s"
        case Disorder(name, after, None):
            return f"{name} before {after}"
        case Disorder(name, after, seconds):
            return f"{name} {seconds * 1e6:.0f} µs after {after}"
    return str(finding)


def main() -> int:
    """Plays the endpoint once, and prints the grade. 0: there is nothing to be found."""
    parser = argparse.ArgumentParser(prog="python -m tests.grading_server", description=main.__doc__)
    parser.add_argument("--port", type=int, default=8400)
    parser.add_argument("--emails", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1, help="The same seed makes the same emails.")
    parser.add_argument("--first", type=float, default=10.0, help="Seconds from the question to the first deadline.")
    parser.add_argument("--lead", type=float, default=0.5, help="What the command is told; 0.1 s more may be early.")
    parser.add_argument("--trouble", type=int, default=0, help="So many are answered with 503 once.")
    parser.add_argument("--refuse", type=int, default=0, help="So many are answered with 422.")
    parser.add_argument("--key", default=KEY)
    given = parser.parse_args()
    rng = random.Random(given.seed)
    emails = inbox(given.emails, rng, first=given.first)
    # Those on which few depend, or there would soon be nobody left to be answered.
    after = dependents(emails)
    told = sorted(rng.sample(sorted(after), len(after)), key=lambda name: len(after[name]) > FEW)
    answers = dict.fromkeys(told[: given.refuse], (422,))
    answers |= dict.fromkeys(told[given.refuse :][: given.trouble], (503,))
    with GradingServer(emails, answers=answers, key=given.key, port=given.port) as server:
        print(f"{len(emails)} emails at {server.url}/emails?test=true, with {KEY_HEADER}: {given.key}", flush=True)
        try:
            server.await_end()
        except KeyboardInterrupt:
            print()
        if not server.was_asked:
            print("Nobody has asked for them.")
            return 1
        grade = server.grade(earliest=given.lead + 0.1)
    print(report(grade))
    return 1 if grade.findings else 0


if __name__ == "__main__":
    sys.exit(main())
