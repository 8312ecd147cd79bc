"""What a simulation shows: slices, blocks, axes, a well-formed picture, and the total with what it is made of."""

import dataclasses
import json
import xml.etree.ElementTree as ElementTree
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from delivery.core.envelope import Kind
from delivery.core.script import VendorScript
from delivery.simulation import plot, report
from delivery.simulation.plot import BLOCKS, Series, shown_rate, shown_time, sliced
from delivery.simulation.run import Progress, Result, Scenario, VendorResult

pytestmark = pytest.mark.once

SVG = "{http://www.w3.org/2000/svg}"
WIDTH = 110


def series(name, *values):
    return Series(name, tuple(float(value) for value in values))


def result(per_second=None, *, seconds=10.0, seed="1", tally=None, states=None):
    """A result of two vendors: by second, what the first one took."""
    taken = Counter(per_second or {0: 20, 3: 5})
    tally = {"accepted": taken.total() + 2} if tally is None else tally
    answers = dict.fromkeys(Kind, 0)
    return Result(
        scenario=Scenario(sum(tally.values()), (VendorScript("alpha"), VendorScript("beta")), seed=seed),
        seconds=seconds,
        states=dict(tally) if states is None else states,
        tally=tally,
        vendors=(
            VendorResult("alpha", answers | {Kind.ACCEPTED: taken.total(), Kind.TRANSIENT: 1_234}, taken),
            # One of them in silence.
            VendorResult("beta", answers | {Kind.ACCEPTED: 2, Kind.UNKNOWN: 1}, Counter({0: 3})),
        ),
    )


def printed(renderable):
    """The lines of a report as they appear."""
    console = Console(width=WIDTH, highlight=False, color_system=None)
    with console.capture() as capture:
        console.print(renderable)
    return [line.rstrip() for line in capture.get().splitlines()]


# ---- slices ----


def test_a_short_time_is_shown_second_by_second():
    assert sliced({"a": {0: 5, 2: 1}}, 3.0, 60) == ([series("a", 5, 0, 1)], 1.0)


def test_a_second_that_has_begun_has_a_slice():
    assert sliced({"a": {0: 5, 3: 1}}, 3.01, 60) == ([series("a", 5, 0, 0, 1)], 1.0)


def test_what_takes_no_time_is_one_second():
    assert sliced({"a": {0: 5}, "b": {}}, 0.0, 60) == ([series("a", 5), series("b", 0)], 1.0)


def test_a_long_time_is_averaged_over_slices_of_whole_seconds():
    assert sliced({"a": {0: 4, 1: 2, 2: 6, 4: 3}, "b": {4: 9}}, 5.0, 3) == (
        [series("a", 3, 3, 1.5), series("b", 0, 0, 4.5)],
        2.0,
    )


def test_what_comes_after_the_time_shown_is_left_out():
    assert sliced({"a": {0: 4, 9: 7}}, 2.0, 60) == ([series("a", 4, 0)], 1.0)


@given(
    st.dictionaries(st.integers(0, 5_000), st.integers(1, 1_000), max_size=30),
    st.integers(1, 300),
    st.floats(0, 2),
)
def test_slices_are_few_enough_and_no_mail_is_lost_or_made_up(counts, slices, more):
    seconds = max(counts, default=0) + 1 + more

    (shown,), length = sliced({"a": counts}, seconds, slices)

    assert 1 <= len(shown.values) <= slices
    assert length >= 1
    assert length.is_integer()
    assert (len(shown.values) - 1) * length < seconds <= len(shown.values) * length
    assert sum(shown.values) * length == pytest.approx(sum(counts.values()))


# ---- a line of blocks ----


def test_all_vendors_are_drawn_on_one_scale_under_each_other():
    assert plot.lines([series("alpha", 0, 80, 40), series("b", 10, 0, 20)], 2.0) == [
        "alpha  █▄ up to 80/s",
        "b     ▁ ▂ up to 20/s",
        "      0 6 s",
    ]


def test_what_is_more_than_nothing_is_seen_and_nothing_is_not():
    (line, _) = plot.lines([series("a", 1_000_000, 0.001, 0)], 1.0)

    assert line == "a █▁  up to 1,000,000/s"


def test_the_time_stands_under_the_end_of_the_blocks():
    line, below = plot.lines([series("a", *range(60))], 3.0)

    assert line.index(" up to") == len(below) == len("a ") + 60
    assert below.endswith("3 min")
    assert below.lstrip().startswith("0 ")


def test_where_nothing_was_taken_nothing_is_drawn():
    assert plot.lines([series("a", 0, 0)], 1.0)[0] == "a    up to 0/s"


def test_a_long_name_leaves_room_for_the_blocks():
    lines = plot.lines([series("a" * 40, *[1_000_000] * 60), series("b", *[1] * 60)], 1.0)

    assert max(map(len, lines)) <= WIDTH
    assert lines[0].startswith("a" * 23 + "… █")
    assert lines[1].startswith("b" + " " * 23 + " ▁")


@given(st.lists(st.integers(0, 1_000_000), min_size=1, max_size=60))
def test_a_larger_number_is_never_a_lower_block(values):
    (line, _) = plot.lines([series("a", *values)], 1.0)

    blocks = [BLOCKS.index(block) for block in line[2 : 2 + len(values)]]
    assert [block for _, block in sorted(zip(values, blocks, strict=True))] == sorted(blocks)
    assert all((block == 0) == (value == 0) for value, block in zip(values, blocks, strict=True))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.04, "0.0 s"),
        (1.25, "1.2 s"),
        (85.34, "85.3 s"),
        (119.0, "119 s"),
        (120, "2 min"),
        (125.4, "2 min 5 s"),
        (725, "12 min 5 s"),
        (7_199.7, "2 h"),
        (7_800, "2 h 10 min"),
        (90_000, "25 h"),
    ],
)
def test_a_time_is_shown_as_people_say_it(seconds, words):
    assert shown_time(seconds) == words


@pytest.mark.parametrize(
    ("rate", "words"),
    [(0, "0/s"), (0.004, "0.004/s"), (0.25, "0.25/s"), (3.75, "3.8/s"), (5, "5/s"), (9.6, "10/s"), (1250.4, "1,250/s")],
)
def test_a_rate_that_is_more_than_nothing_does_not_look_like_nothing(rate, words):
    assert shown_rate(rate) == words


# ---- the picture ----


def drawn(vendors, length=1.0, title="title"):
    return ElementTree.fromstring(plot.svg(vendors, length, title))


def words(picture):
    return [text.text for text in picture.iter(f"{SVG}text")]


def points(polyline):
    return [tuple(map(float, point.split(","))) for point in polyline.get("points").split()]


def test_the_picture_is_xml_and_has_a_line_and_a_name_for_each_vendor():
    picture = drawn([series("alpha", 0, 80, 40), series("beta", 1, 2, 3)], title="Mails")

    assert picture.tag == f"{SVG}svg"
    assert picture.find(f"{SVG}title").text == "Mails"
    assert {"Mails", "alpha", "beta", "0/s", "80/s", "0 s", "3 s"} <= set(words(picture))
    lines = picture.findall(f"{SVG}polyline")
    assert [len(points(line)) for line in lines] == [3, 3]
    assert len({line.get("stroke") for line in lines}) == 2


def test_names_and_title_are_escaped():
    evil = "<script>&\"'"

    picture = drawn([series(evil, 1)], title=evil)

    assert words(picture).count(evil) == 2
    assert picture.find(f".//{SVG}script") is None
    assert "<script>" not in plot.html(plot.svg([series(evil, 1)], 1.0, evil), evil)


def test_a_line_is_as_high_as_its_share_of_the_highest():
    first, second = drawn([series("a", 0, 80, 40), series("b", 20, 0, 0)]).findall(f"{SVG}polyline")

    bottom, top = plot.HEIGHT - plot.BOTTOM, plot.TOP
    assert [y for _, y in points(first)] == [bottom, top, (bottom + top) / 2]
    assert points(second)[0][1] == pytest.approx(bottom - (bottom - top) / 4, abs=0.1)
    assert [x for x, _ in points(first)] == sorted(x for x, _ in points(first))


def test_a_picture_of_nothing_is_a_picture_too():
    (line,) = drawn([series("a", 0, 0)]).findall(f"{SVG}polyline")

    assert {y for _, y in points(line)} == {plot.HEIGHT - plot.BOTTOM}


@pytest.mark.parametrize("count", [1, 5, 12])
@pytest.mark.parametrize("length", [1, 12, 40])
def test_the_legend_is_inside_the_picture_and_no_name_hides_another(count, length):
    picture = drawn([series(f"{n}".rjust(length, "v"), 1) for n in range(count)])

    _, _, width, height = map(float, picture.get("viewBox").split())
    names = [text for text in picture.iter(f"{SVG}text") if text.get("fill") == "#374151"]
    places = [(float(text.get("x")), float(text.get("y"))) for text in names]
    assert len(set(places)) == count
    assert all(x + 8 * length <= width and y < height for x, y in places)
    assert all(y > plot.HEIGHT - plot.BOTTOM + 20 for _, y in places)
    assert all(
        one == other or abs(one[1] - other[1]) >= 12 or abs(one[0] - other[0]) >= 8 * length
        for one in places
        for other in places
    )


def test_the_page_holds_the_whole_picture_and_asks_for_nothing_else():
    picture = plot.svg([series("a", 1)], 1.0, "title")
    page = plot.html(picture, "title")

    assert picture in page
    assert page.startswith("<!doctype html>\n")
    assert "<title>title</title>" in page
    assert [
        word for word in ("src=", "href=", "http") if word in page.replace('xmlns="http://www.w3.org/2000/svg"', "")
    ] == []


def test_the_picture_of_a_result_names_the_deliveries_and_the_seed():
    svg = report.picture(result(seed="a<b"), as_html=False)

    assert words(ElementTree.fromstring(svg))[0] == "Mails taken per second: 27 deliveries, seed a<b"
    assert svg in report.picture(result(seed="a<b"), as_html=True)


# ---- the report ----


def test_the_equation_says_what_the_total_is_made_of():
    told = result(tally={"accepted": 1_000, "dead": 20, "uncertain": 3})

    assert report.equation(told) == "Reconciled: 1,023 = 1,000 accepted + 20 dead + 3 uncertain"


def test_what_does_not_add_up_is_not_called_reconciled_in_silence():
    told = result(tally={"accepted": 27}, states={"accepted": 26, "ready": 1})

    assert report.equation(told) == (
        "Reconciled: 27 = 27 accepted  DOES NOT RECONCILE: counted {'accepted': 26, 'ready': 1}"
    )


def test_the_summary_has_the_vendors_the_throughput_the_time_and_the_equation():
    lines = printed(report.summary(result()))

    assert lines[0] == "vendor  calls for mails  accepted  recipient's fault  trouble  locked  slow down  silence"
    assert [line.split() for line in lines[1:3]] == [
        ["alpha", "1,259", "25", "-", "1,234", "-", "-", "-"],
        ["beta", "3", "2", "-", "-", "-", "-", "1"],
    ]
    assert "Mails taken per second:" in lines
    assert [line.partition("up to")[2] for line in lines if "up to" in line] == [" 20/s", " 3/s"]
    assert lines[-2].startswith("Time to finish: 10 s ")
    assert lines[-1] == "Reconciled: 27 = 27 accepted"


def test_a_summary_of_a_result_with_nothing_taken_can_be_printed():
    nothing = result(tally={"dead": 5}, seconds=0.0)
    nothing = dataclasses.replace(
        nothing, vendors=tuple(dataclasses.replace(v, per_second=Counter()) for v in nothing.vendors)
    )

    assert printed(report.summary(nothing))[-1] == "Reconciled: 5 = 5 dead"
    assert report.picture(nothing, as_html=True).endswith("</html>\n")


def test_while_it_runs_the_table_says_how_far_it_is():
    told = result()
    vendors = tuple((vendor.name, vendor.answers) for vendor in told.vendors)

    lines = printed(report.live(Progress(125.2, {"accepted": 700, "dead": 50}, vendors), 1_000))

    assert lines[0] == "2 min 5 s   750 of 1,000 deliveries ended (75%)"
    assert [line.split()[0] for line in lines[1:]] == ["vendor", "alpha", "beta"]


def test_every_kind_of_answer_that_a_scripted_vendor_gives_has_its_column():
    assert set(Kind) - set(report.COLUMNS) == {Kind.MESSAGE}


def test_as_json_it_is_complete_and_in_plain_values():
    told = report.as_json(result())

    none = {"recipient": 0, "message": 0, "engine": 0, "throttled": 0}
    throughput = told.pop("throughput")
    assert json.loads(json.dumps(told)) == told
    assert (
        told.items()
        >= {
            "deliveries": 27,
            "seed": "1",
            "strategy": "priority",
            "workers": 1,
            "seconds": 10.0,
            "counts": {"accepted": 27},
            "reconciles": True,
            "vendors": [
                {"name": "alpha", "answers": {"accepted": 25, "transient": 1_234, "unknown": 0, **none}, "taken": 25},
                {"name": "beta", "answers": {"accepted": 2, "transient": 0, "unknown": 1, **none}, "taken": 3},
            ],
        }.items()
    )
    assert throughput["slice_seconds"] == 1.0
    assert throughput["per_second"]["alpha"][:4] == [20.0, 0.0, 0.0, 5.0]
    assert sum(throughput["per_second"]["beta"]) == 3
