"""The mock composer: by a seed, as slow as a model, and as unreliable as one wants it."""

import asyncio

import pytest

from delivery.core.envelope import Kind, Outcome
from delivery.engines import KINDS
from delivery.engines.composers import Composed, Prompt
from delivery.engines.composers.mock import KIND, MockComposer
from delivery.simulation.loop import VirtualLoop

pytestmark = pytest.mark.once

PROMPTS = [Prompt(f"Write to person {number}.", key=f"token.{number:x}.1") for number in range(200)]


def composed(composer, prompts):
    """What comes of prompts that are asked all at once, and how many virtual seconds each answer took."""
    loop = VirtualLoop()
    found = {}

    async def ask(prompt):
        answer = await composer.compose(prompt)
        found[prompt.key] = answer, loop.time()

    async def all_of_them():
        await asyncio.gather(*(ask(prompt) for prompt in prompts))

    loop.run_until_complete(all_of_them())
    return found


def test_an_answer_takes_between_four_and_six_tenths_of_a_second():
    seconds = [took for _, took in composed(MockComposer(), PROMPTS).values()]

    assert 0.4 <= min(seconds) < 0.42
    assert 0.58 < max(seconds) <= 0.6


def test_the_same_seed_gives_the_same_words_at_the_same_time_in_whatever_order_they_are_asked():
    assert composed(MockComposer("7"), PROMPTS) == composed(MockComposer("7"), PROMPTS[::-1])


def test_another_seed_another_prompt_and_another_try_give_other_words_or_other_times():
    there = composed(MockComposer("7"), PROMPTS[:1])[PROMPTS[0].key]

    assert composed(MockComposer("8"), PROMPTS[:1])[PROMPTS[0].key] != there
    assert composed(MockComposer("7"), [Prompt("Another.", key=PROMPTS[0].key)])[PROMPTS[0].key] != there
    assert composed(MockComposer("7"), [Prompt(PROMPTS[0].user, key="token.0.2")])["token.0.2"] != there


def test_the_words_show_what_they_were_composed_for():
    ((answer, _),) = composed(MockComposer(), [Prompt("Write to Ann,\nabout books. " + "x" * 300, key="k")]).values()

    last = answer.text.rpartition("\n\n")[2]
    assert last.startswith("(Composed for: Write to Ann, about books. xxx")
    assert last.endswith("x…)")
    assert answer.outcome == Outcome(Kind.ACCEPTED, "200")


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_as_many_fail_as_the_script_says_and_another_try_has_its_own_luck(share):
    first = composed(MockComposer("7", failures=share), PROMPTS)
    again = composed(MockComposer("7", failures=share), [Prompt(each.user, key=each.key + "0") for each in PROMPTS])

    failed = [answer for answer, _ in first.values() if not answer.text]
    assert abs(len(failed) / len(PROMPTS) - share) < 0.1
    assert set(failed) <= {Composed(Outcome(Kind.TRANSIENT, "503", "A scripted failure of the mock composer."))}
    if share == 0.25:
        assert [bool(a.text) for a, _ in first.values()] != [bool(a.text) for a, _ in again.values()]


def test_the_settings_reach_the_composer():
    given = {"seed": "7", "shortest_seconds": 1.0, "longest_seconds": 2.0, "failure_percent": 50, "concurrency": 3}
    built = MockComposer("7", shortest=1.0, longest=2.0, failures=0.5, concurrency=3)

    opened = KIND.open(1, given, {})

    assert opened.concurrency == 3
    assert composed(opened, PROMPTS) == composed(built, PROMPTS)
    assert composed(KIND.open(1, {}, {}), PROMPTS) == composed(MockComposer("1"), PROMPTS)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"longest_seconds": 0.3}, "The quickest answer (0.4 s) takes longer than the slowest (0.3 s)."),
        ({"shortest_seconds": -1}, "The setting shortest seconds must be between 0 and 60, not -1."),
        ({"failure_percent": 101}, "The setting failure percent must be between 0 and 100, not 101."),
        ({"concurrency": 0}, "The setting concurrency must be between 1 and 500, not 0."),
    ],
)
def test_settings_that_cannot_work_are_named(given, words):
    assert KIND.problems(given, {}) == [words]


def test_no_setting_is_needed():
    assert KIND.problems({}, {}) == []


def test_it_is_offered_composes_and_has_nothing_to_check_or_close():
    async def ask(composer):
        found = await composer.check()
        await composer.close()
        return found

    assert KINDS["mock_composer"] is KIND
    assert [slug for slug, kind in KINDS.items() if kind.composes] == ["openai", "mock_composer"]
    assert asyncio.run(ask(MockComposer())) == []
