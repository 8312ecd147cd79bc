"""A workflow's steps as one would say them."""

from datetime import timedelta

import pytest

from campaigns.admin.step_words import spoken, steps_in_words, title_of
from campaigns.models import OnLate, Step, Template
from delivery.models import Engine

pytestmark = pytest.mark.once


def step(position=1, name="News", **settings):
    return Step(position=position, template=Template(name=name), **settings)


def said(deadline_field="", **settings):
    """The line of one step."""
    (line,) = steps_in_words([step(**settings)], deadline_field=deadline_field)
    return line


def test_the_plainest_step_is_a_template_at_once():
    assert steps_in_words([step()], ["replied", "bounced"]) == ["1. News, at once."]


def test_a_sequence_is_a_line_for_each_step_and_one_for_who_gets_no_more():
    steps = [
        step(),
        step(2, "Reminder", after="1 not opened", delay="3 days", deadline_minutes=120),
        step(3, "Goodbye", after="1, 2 not replied", thread=False),
    ]

    assert steps_in_words(steps, ["replied", "bounced"]) == [
        "1. News, at once.",
        "2. Reminder, 3 days after 1, to who has not opened it; answers it in the same conversation; within 2 hours, "
        "else it expires.",
        "3. Goodbye, at once after 1 and 2, to who has not replied to 2; begins a new conversation.",
        "Who replies, or whose mail comes back, gets no more of them.",
    ]


@pytest.mark.parametrize(
    ("after", "delay", "words"),
    [
        ("", "3 days", "3 days after the beginning of the run"),
        ("", "next tuesday 9:00", "at the next Tuesday 09:00 by the workflow's clock"),
        ("1", "next tuesday 9:00 their time", "after 1 at the next Tuesday 09:00 by each recipient's own clock"),
        (
            "1",
            "2 days, then mon-fri 9:00",
            "2 days after 1, then at the next Monday-Friday 09:00 by the workflow's clock",
        ),
        ("1", "90 minutes", "1 hour 30 minutes after 1"),
    ],
)
def test_when_a_step_goes_is_said(after, delay, words):
    assert said(after=after, delay=delay).startswith(f"1. News, {words}")


@pytest.mark.parametrize(
    ("after", "words"),
    [
        ("1", ""),
        ("1 ended", ", whatever has become of it"),
        ("1 not accepted", ", to who could not be sent it"),
        ("1 bounced", ", to whom it bounced"),
        ("1 clicked, 2 not delivered", ", to who has clicked in 1 and to whom 2 was not delivered"),
    ],
)
def test_to_whom_a_step_goes_is_said(after, words):
    line = said(position=3, after=after, thread=False)

    named = "1 and 2" if "2" in after else "1"
    assert line == f"3. News, at once after {named}{words}; begins a new conversation."


def test_a_condition_is_said_as_it_is_written():
    assert said(condition=' plan == "gold" ') == '1. News, at once, where plan == "gold".'


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ({"deadline_minutes": 90}, "within 1 hour 30 minutes, else it expires"),
        ({"deadline_minutes": 90, "on_late": OnLate.SEND}, "within 1 hour 30 minutes, else it goes late"),
        ({"deadline_field": "until"}, "until each recipient's “until”, else it expires"),
        (
            {"deadline_field": "until", "deadline_minutes": 1, "lead_seconds": 10},
            "within 1 minute and until each recipient's “until”, 10 seconds before that at the earliest, "
            "else it expires",
        ),
    ],
)
def test_until_when_a_step_goes_is_said(written, words):
    assert said(**written) == f"1. News, at once; {words}."


def test_the_audiences_deadlines_count_for_no_step_that_waits_for_another():
    assert "until each" not in said(position=2, after="1", deadline_field="until")


@pytest.mark.parametrize(("review", "words"), [(False, ""), (True, ", read by a person before it goes")])
def test_who_writes_the_text_is_said(review, words):
    line = said(composer=Engine(name="Writer"), prompt="Write.", review=review)

    assert line == f"1. News, at once; its text is written by Writer{words}."


def test_a_line_that_cannot_be_read_is_said_with_what_is_wrong():
    assert said(after="first").startswith('1. News: "first" is not the number of a step.')


@pytest.mark.parametrize(
    ("time", "words"),
    [
        (timedelta(), "0 seconds"),
        (timedelta(seconds=1), "1 second"),
        (timedelta(days=1, minutes=2), "1 day 2 minutes"),
        (timedelta(weeks=2), "14 days"),
        (timedelta(seconds=0.5), "0.5 seconds"),
        (timedelta(seconds=90.5), "1 minute 30.5 seconds"),
    ],
)
def test_a_time_is_said_in_the_units_that_it_takes(time, words):
    assert spoken(time) == words


def test_a_step_is_called_by_its_number_and_its_template():
    assert title_of(step(2, "Reminder")) == "Step 2: Reminder"
