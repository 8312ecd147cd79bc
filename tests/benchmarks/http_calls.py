"""`make bench-http`: how many calls of an HTTP API a second one process makes, and what others make of the same ones.

One hundred calls are under way at any time; nginx answers them on loopback. Measured are the engine for any JSON API,
with its record made from a mail and its answer understood; plain httpx and aiohttp with that record made beforehand;
and Postmark's engine with five hundred mails a call, as many calls at once as it makes by itself. Where the package h2
is installed, also httpx over HTTP/2, beside HTTP/1.1 over TLS. The last line is one JSON object.
"""

import argparse
import asyncio
import json
import os
import resource
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec

import aiohttp
import httpx
import uvloop

from tests.benchmarks.mix import mix, recipient
from tests.benchmarks.nginx import Nginx, NginxUnavailable
from tests.benchmarks.report import closing_line, table

CONCURRENCY = 100
LARGEST_BATCH = 500
GOALS = {"engine": 2_000, "postmark": 5_000}  # deliveries a second
ONE, MANY = "/one.json", "/email/batch"
HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer 0123456789abcdef0123456789abcdef"}
ANSWER = json.dumps({"id": "0123456789abcdef", "status": "queued"})
BATCH_ANSWER = json.dumps(
    [
        {
            "To": f"person{number}@recipients.example",
            "SubmittedAt": "2026-01-02T03:04:05.0000000Z",
            "MessageID": f"00000000-0000-0000-0000-{number:012d}",
            "ErrorCode": 0,
            "Message": "OK",
        }
        for number in range(LARGEST_BATCH)
    ]
)


@dataclass(frozen=True, slots=True)
class Measured:
    """What a number of calls took, and how many mails they carried."""

    name: str
    calls: int
    mails: int
    seconds: float
    cpu_seconds: float

    def row(self) -> dict[str, object]:
        return {
            "caller": self.name,
            "calls": self.calls,
            "calls per second": self.calls / self.seconds,
            "mails per second": self.mails / self.seconds,
            "CPU us each call": self.cpu_seconds / self.calls * 1e6,
            "CPU us each mail": self.cpu_seconds / self.mails * 1e6,
        }


async def measured(
    name: str,
    jobs: Sequence[object],
    call: Callable[[object], Awaitable[None]],
    size: int = 1,
    at_once: int = CONCURRENCY,
) -> Measured:
    """All the jobs, so many at once, after as many that only open the connections. `size`: mails in each."""
    await asyncio.gather(*map(call, jobs[:at_once]))
    left = iter(jobs)

    async def work() -> None:
        for job in left:
            await call(job)

    cpu, begun = cpu_seconds(), time.monotonic()
    await asyncio.gather(*(work() for _ in range(at_once)))
    return Measured(name, len(jobs), len(jobs) * size, time.monotonic() - begun, cpu_seconds() - cpu)


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def envelopes(number: int) -> list:
    """The mix, rendered."""
    from delivery.core.envelope import Envelope, Frame, Mailbox

    frame = Frame(Mailbox("news@outreach.example", "Käthe Größer"), "bounces@outreach.example")
    date = datetime.now(UTC)

    def one(i: int) -> Envelope:
        address, name, *parts = mix(i)
        to, data = Mailbox(address, name), recipient(i)[1]
        return Envelope(f"k.{i:x}", f"k.{i:x}@outreach.example", frame, to, *parts, date, (), data)

    return [one(i) for i in range(number)]


def api_record(mail) -> bytes:
    """What the engine below sends for a mail, made beforehand."""
    sender = {"email": mail.frame.sender.address, "name": mail.frame.sender.name}
    record = {"to": mail.recipient.address, "from": sender, "subject": mail.subject, "text": mail.text}
    return json.dumps({**record, "html": mail.html, "reference": mail.key}, ensure_ascii=False).encode()


def api_engine(url: str):
    """The engine for any JSON API, as an operator would set it up."""
    from delivery.engines.http_api import KIND
    from delivery.engines.http_api.form import EXAMPLE_BODY

    options = {
        "url": url,
        "body": EXAMPLE_BODY,
        "auth": "bearer",
        "rules": "422: recipient\n$.error.code=rate_limited: throttled",
        "id_path": "id",
        "concurrency": CONCURRENCY,
    }
    secrets = {"credential": "0123456789abcdef0123456789abcdef"}
    if problems := KIND.problems(options, secrets):
        raise SystemExit(" ".join(problems))
    return KIND.open(1, options, secrets)


def postmark_engine(url: str):
    """Postmark's engine, with nginx in Postmark's place."""
    from delivery.engines.postmark import KIND

    options = {"stream": "broadcast", "endpoint": url}
    return KIND.open(1, options, {"token": "00000000-0000-0000-0000-000000000000"})


async def by_engine(name: str, engine, batches: list) -> Measured:
    async def call(batch: list) -> None:
        for outcome in await engine.send(batch):
            if outcome.kind != "accepted":
                raise SystemExit(f"{name} did not do what is measured: {outcome}")

    try:
        return await measured(name, batches, call, len(batches[0]), engine.concurrency)
    finally:
        await engine.close()


async def by_httpx(name: str, url: str, bodies: list[bytes], **given: object) -> Measured:
    async with httpx.AsyncClient(timeout=60, **given) as client:  # its own limits: 100 connections

        async def call(body: bytes) -> None:
            answer = await client.post(url, content=body, headers=HEADERS)
            answer.raise_for_status()

        return await measured(name, bodies, call)


async def by_aiohttp(name: str, url: str, bodies: list[bytes], tls: ssl.SSLContext | None = None) -> Measured:
    connector = aiohttp.TCPConnector(limit=0, ssl=tls or True)
    async with aiohttp.ClientSession(connector=connector, raise_for_status=True) as session:

        async def call(body: bytes) -> None:
            async with session.post(url, data=body, headers=HEADERS) as answer:
                await answer.read()

        return await measured(name, bodies, call)


async def compare(nginx: Nginx, calls: int) -> dict[str, Measured]:
    """All callers, one after the other."""
    mails = envelopes(calls)
    url = f"http://127.0.0.1:{nginx.port}"
    record = [api_record(mail) for mail in mails]
    few = record[: max(calls // 10, CONCURRENCY)]
    batches = [[mails[j % len(mails)] for j in range(i, i + LARGEST_BATCH)] for i in range(0, 2 * calls, LARGEST_BATCH)]
    found = {
        "engine": await by_engine("Outreach, any JSON API", api_engine(url + ONE), [[mail] for mail in mails]),
        "aiohttp": await by_aiohttp("aiohttp alone", url + ONE, record),
        "httpx": await by_httpx("plain httpx", url + ONE, few),
        "postmark": await by_engine("Outreach, Postmark, 500 a call", postmark_engine(url), batches),
    }
    if find_spec("h2"):
        found |= await compare_tls(nginx, record, few)
    return found


async def compare_tls(nginx: Nginx, record: list[bytes], few: list[bytes]) -> dict[str, Measured]:
    """The same over TLS, where HTTP/2 is to be had."""
    url = f"https://127.0.0.1:{nginx.tls_port}{ONE}"
    trust = ssl.create_default_context(cafile=nginx.certificate)
    return {
        "aiohttp_tls": await by_aiohttp("aiohttp alone, TLS", url, record, trust),
        "httpx_tls": await by_httpx("plain httpx, TLS", url, few, verify=trust),
        "httpx_http2": await by_httpx("httpx, HTTP/2", url, few, verify=trust, http2=True),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000, help="httpx makes a tenth of them")
    calls = parser.parse_args().calls
    os.environ |= {"OUTREACH_ALLOWED_NETWORKS": "127.0.0.1/32"}
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "outreach.settings")
    import django

    django.setup()
    try:
        with Nginx({ONE: ANSWER, MANY: BATCH_ANSWER}) as nginx:
            found = uvloop.run(compare(nginx, calls))
    except NginxUnavailable as error:
        raise SystemExit(str(error)) from None
    print(table([each.row() for each in found.values()]))
    figures: dict[str, object] = {"calls": calls, "concurrency": CONCURRENCY, "batch": LARGEST_BATCH}
    for name, each in found.items():
        figures[f"{name}_calls_per_s"] = round(each.calls / each.seconds)
        figures[f"{name}_cpu_us"] = round(each.cpu_seconds / each.calls * 1e6)
    figures["postmark_mails_per_s"] = round(found["postmark"].mails / found["postmark"].seconds)
    figures["goals_met"] = all(found[name].mails / found[name].seconds >= goal for name, goal in GOALS.items())
    print(closing_line(figures))


if __name__ == "__main__":
    main()
