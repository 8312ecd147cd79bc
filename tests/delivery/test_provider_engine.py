"""The driver of all providers: which mails go in which call, and what becomes of those that do not."""

import json
from dataclasses import replace

import httpx
import pytest

from delivery.core.envelope import Attachment, Kind, Mailbox, Outcome
from delivery.engines.provider import ProviderEngine
from delivery.http import Call
from tests.delivery.provider_mails import PROVIDERS, TAKES_SEVERAL, envelope, frame, send

pytestmark = pytest.mark.once

BATCHES = pytest.mark.parametrize("slug", TAKES_SEVERAL)
FILE = Attachment("a.zz", "application/x-zz", b"x")
# Two frames whose mails the API does not take in one call.
MIXED = pytest.mark.parametrize(
    ("slug", "first", "second"),
    [
        ("resend", frame(), frame(attachments=(FILE,))),
        ("brevo", frame(), frame(sender=Mailbox("other@shop.example"))),
    ],
    ids=["resend", "brevo"],
)


class Scripted:
    """A provider whose groups and outcomes the test chooses."""

    batch_size, honours_keys = 10, False

    def __init__(self, groups=lambda envelopes: [envelopes], read=lambda envelopes: [Outcome(Kind.ACCEPTED)]):
        self.groups = groups
        self._read = read

    def refuse(self, envelope):
        return None

    def call(self, envelopes, now):
        return Call("POST", "https://api.example/", content=b",".join(each.key.encode() for each in envelopes))

    def read(self, answer, envelopes, now):
        return self._read(envelopes)


def well(request):
    return httpx.Response(200)


@BATCHES
def test_one_mail_that_cannot_be_written_down_spoils_none_of_its_neighbours(slug):
    mails = [envelope(0), envelope(1, subject="a\nb"), envelope(2), envelope(3, html="\ud800"), envelope(4)]
    asked = []

    def handler(request):
        asked.append(json.loads(request.content))
        return httpx.Response(503)

    found = send(PROVIDERS[slug], handler, *mails)

    assert [each.kind for each in found] == [
        Kind.TRANSIENT, Kind.MESSAGE, Kind.TRANSIENT, Kind.MESSAGE, Kind.TRANSIENT
    ]  # fmt: skip
    assert [each.shared for each in found] == [False] * 5
    assert len(asked) == 1


@MIXED
def test_mails_that_cannot_go_together_go_apart_and_each_gets_its_own_answer(slug, first, second):
    mails = [envelope(n, frame=(first, second)[n % 2], recipient=Mailbox(f"r{n}@mail.example")) for n in range(6)]
    calls = []

    def handler(request):
        calls.append([n for n in range(6) if f"r{n}@mail.example" in request.content.decode()])
        return httpx.Response(422, json={"message": f"call of {calls[-1]}"})

    found = send(PROVIDERS[slug], handler, *mails)

    assert sorted(n for call in calls for n in call) == list(range(6))
    assert len(calls) > 1
    assert all(f"{n}" in each.text for n, each in enumerate(found))


@MIXED
@pytest.mark.parametrize(
    ("error", "kinds"),
    [
        (httpx.Response(429), [Kind.THROTTLED, Kind.THROTTLED]),
        (httpx.Response(401), [Kind.ENGINE, Kind.ENGINE]),
        (httpx.Response(503), [Kind.TRANSIENT, Kind.TRANSIENT]),
        (httpx.ReadTimeout("no answer"), [Kind.UNKNOWN, Kind.TRANSIENT]),
        (httpx.Response(413), [Kind.MESSAGE, Kind.MESSAGE]),
    ],
    ids=["slower", "key", "trouble", "silence", "message"],
)
def test_after_an_answer_about_the_engine_nothing_else_is_handed_over(slug, first, second, error, kinds):
    mails = [envelope(n, frame=each) for n, each in enumerate((first, second) * 2)]
    asked = []

    def handler(request):
        asked.append(request)
        if isinstance(error, Exception):
            raise error
        return error

    found = send(PROVIDERS[slug], handler, *mails)

    assert (found[0].kind, found[-1].kind) == tuple(kinds)
    assert (len(asked) == 1) is (kinds != [Kind.MESSAGE] * 2)


@pytest.mark.parametrize("slug", list(PROVIDERS))
def test_an_engine_claims_to_honour_keys_only_where_a_key_names_one_mail(slug):
    provider = PROVIDERS[slug]
    single = replace(provider, batch_size=1)

    engines = [ProviderEngine(each, concurrency=1, timeout=5) for each in (provider, single)]

    assert [each.honours_keys for each in engines] == [False, slug == "resend"]


def test_an_answer_about_other_mails_than_those_is_unknown():
    found = send(Scripted(), well, envelope(1), envelope(2))

    assert [each.kind for each in found] == [Kind.UNKNOWN] * 2


def test_two_mails_that_are_equal_are_two_mails():
    ids = iter("ab")
    provider = Scripted(
        groups=lambda envelopes: [[each] for each in envelopes],
        read=lambda envelopes: [Outcome(Kind.ACCEPTED, provider_id=next(ids))],
    )

    found = send(provider, well, envelope(1), envelope(1))

    assert [each.provider_id for each in found] == ["a", "b"]


def test_outcomes_come_in_the_order_of_the_mails_whatever_the_groups():
    provider = Scripted(
        groups=lambda envelopes: [[envelopes[2], envelopes[0]], [envelopes[1]]],
        read=lambda envelopes: [Outcome(Kind.ACCEPTED, provider_id=each.key) for each in envelopes],
    )
    mails = [envelope(1), envelope(2), envelope(3)]

    found = send(provider, well, *mails)

    assert [each.provider_id for each in found] == [mail.key for mail in mails]


def test_no_mails_make_no_call():
    assert send(Scripted(), lambda request: pytest.fail("called"), *[]) == []


def test_mails_that_can_each_be_written_down_and_not_together_are_sent_in_smaller_calls_by_the_worker():
    class Narrow(Scripted):
        def call(self, envelopes, now):
            if len(envelopes) > 1:
                raise ValueError("too many")
            return super().call(envelopes, now)

    found = send(Narrow(), well, envelope(1), envelope(2))

    assert found == [Outcome(Kind.MESSAGE, text="The mail cannot be built: too many", shared=True)] * 2
