"""The admin of workflows of several steps: set up with their errors at their fields, followed step by step."""

import re

import pytest
from django.contrib.auth.models import Permission, User
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from campaigns.admin import step_accounting
from campaigns.admin.zone_warning import zone_warning
from campaigns.audiences.sample import sample_of
from campaigns.models import OnLate, Run, RunState, Step, Workflow
from delivery.models import Batch, Delivery, Engine, Message, Tally
from delivery.models.batch import LATE
from tests.campaigns import cast
from tests.campaigns.test_admin import signed_in, staff, text_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("output_dir")]


@pytest.fixture
def root() -> Client:
    return signed_in(User.objects.create(username="root", is_staff=True, is_superuser=True))


@pytest.fixture
def viewer() -> Client:
    return signed_in(staff("viewer", Permission.objects.filter(codename__startswith="view_")))


def change_url(workflow):
    return reverse("admin:campaigns_workflow_change", args=[workflow.pk])


def form_of(workflow, *steps, **changes):
    """What the page of a workflow sends. Each step is its fields; with an `id` it is there already."""
    form = {
        "name": workflow.name,
        "slug": workflow.slug,
        "audience": workflow.audience_id,
        "pool": workflow.pool_id,
        "from_address": workflow.from_address,
        "priority": 0,
        "start": "checked",
        "on_uncertain": "hold",
        "on_render_error": "stop",
        "on_failed": "skip",
        "gap_microseconds": 100,
        "stop_on_reply": "on",
        "stop_on_bounce": "on",
        "steps-TOTAL_FORMS": len(steps),
        "steps-INITIAL_FORMS": sum("id" in step for step in steps),
    }
    template = workflow.steps.first().template_id
    for place, step in enumerate(steps):
        given = {"template": template, "position": place + 1, "on_late": "expire", "thread": "on"} | step
        form |= {f"steps-{place}-{name}": value for name, value in given.items()}
    form |= {name: value for name, value in changes.items() if value is not None}
    for name in [name for name, value in changes.items() if value is None]:
        form.pop(name, None)
    return form


def first(workflow, **fields):
    """The step that a workflow has, as its form sends it."""
    return {"id": workflow.steps.get().pk, **fields}


def errors_of(response):
    """What is said at the fields of each step: {place: {field: words}}; None is about all of them."""
    formset = response.context["inline_admin_formsets"][0].formset
    found = {place: {n: w[0] for n, w in errors.items()} for place, errors in enumerate(formset.errors) if errors}
    return found | ({None: list(formset.non_form_errors())} if formset.non_form_errors() else {})


def messages_of(response):
    return [str(message) for message in response.context["messages"]]


# ---- setting up ----


def test_several_steps_are_saved_with_all_that_they_say(root):
    workflow = cast.workflow()
    composer = Engine.objects.create(name="Writer", slug="writer", kind="mock_composer")
    second = {"after": "1 not opened", "delay": "3 days", "condition": 'city == "Oslo"', "thread": ""}
    timed = {"deadline_minutes": 120, "on_late": "send", "lead_seconds": 60}
    written = {"composer": composer.pk, "prompt": "Write to {{ name }}.", "review": "on"}

    response = root.post(change_url(workflow), form_of(workflow, first(workflow), second | timed | written))

    assert response.status_code == 302
    one, two = workflow.steps.all()
    assert (one.position, one.after, one.thread, one.composer) == (1, "", True, None)
    assert (two.position, two.after, two.delay, two.condition) == (2, "1 not opened", "3 days", 'city == "Oslo"')
    assert (two.deadline_minutes, two.on_late, two.lead_seconds, two.thread) == (120, OnLate.SEND, 60, False)
    assert (two.composer, two.prompt, two.review) == (composer, "Write to {{ name }}.", True)


def test_a_step_without_a_number_gets_the_next_one(root):
    workflow = cast.workflow()

    root.post(change_url(workflow), form_of(workflow, first(workflow, position=7), {"position": ""}, {"position": ""}))

    assert list(workflow.steps.values_list("position", flat=True)) == [7, 8, 9]


def test_steps_exchange_their_numbers_and_take_those_of_steps_that_go(root):
    workflow = cast.workflow()
    for position in (2, 3):
        cast.add_step(workflow, position)
    one, two, three = workflow.steps.all()

    response = root.post(
        change_url(workflow),
        form_of(
            workflow,
            {"id": one.pk, "position": 2},
            {"id": two.pk, "position": 1},
            {"id": three.pk, "position": 3, "DELETE": "on"},
            {"position": 3},
        ),
    )

    assert response.status_code == 302
    steps = dict(workflow.steps.values_list("position", "pk"))
    assert (steps[1], steps[2]) == (two.pk, one.pk)
    assert sorted(steps) == [1, 2, 3]
    assert three.pk not in steps.values()


@pytest.mark.parametrize("kept", [False, True], ids=["none was entered", "the last one was deleted"])
def test_a_workflow_has_a_step_at_least(kept, root):
    workflow = cast.workflow()
    steps = [first(workflow, DELETE="on")] if kept else []

    response = root.post(change_url(workflow), form_of(workflow, *steps))

    assert errors_of(response)[None] == ["A workflow needs a step: choose its template."]
    assert workflow.steps.count() == 1


@pytest.mark.parametrize(
    ("steps", "errors"),
    [
        (
            [{"after": "2"}, {"after": "1"}],
            {0: {"after": "These steps wait for each other in a circle: 1 → 2 → 1. One of them must begin."}},
        ),
        ([{}, {"after": "3"}], {1: {"after": "There is no step 3 to wait for; there is 1."}}),
        (
            [{}, {"after": "1 replied"}],
            {
                1: {
                    "after": "It waits for step 1 to be replied, and the workflow stops at that: then it never goes "
                    "out. Let the workflow go on, or wait for less."
                }
            },
        ),
        (
            [{}, {"position": 1}, {"position": 3}],
            {n: {"position": "There are 2 steps 1: 2 is free, for example."} for n in (0, 1)},
        ),
        ([{"position": 0}], {0: {"position": "Numbers go from 1 to 29,999."}}),
        (
            [{"lead_seconds": 60}],
            {
                0: {
                    "lead_seconds": "So long before which deadline? Enter one above, such as 120 minutes, or name the "
                    "field with the recipients' deadlines on the page of the audience."
                }
            },
        ),
        (
            [{}, {"prompt": "Write."}],
            {1: {"composer": "Who is asked? Choose a composer, or leave the prompt empty."}},
        ),
    ],
    ids=["a circle", "no such step", "a stop", "a number twice", "number 0", "no deadline", "no composer"],
)
def test_what_makes_no_sense_is_said_at_the_steps_field_and_nothing_is_saved(steps, errors, root):
    workflow = cast.workflow()
    begin = first(workflow) | steps[0]

    response = root.post(change_url(workflow), form_of(workflow, begin, *steps[1:]))

    found = errors_of(response)
    if "circle" in str(errors):  # which of them it is said at is nobody's promise
        (found,) = (list(each.values()) for each in found.values())
        assert re.fullmatch(r"These steps .* circle: (1 → 2 → 1|2 → 1 → 2)\. One of them must begin\.", found[0])
    else:
        assert found == errors
    assert workflow.steps.count() == 1


def test_a_bad_line_is_said_by_itself_before_the_steps_are_judged_together(root):
    workflow = cast.workflow()

    response = root.post(change_url(workflow), form_of(workflow, first(workflow, after="2"), {"delay": "soon"}))

    assert list(errors_of(response)) == [1]
    assert list(errors_of(response)[1]) == ["delay"]


def test_a_step_may_wait_for_a_reply_where_the_workflow_goes_on_at_one(root):
    workflow = cast.workflow()
    form = form_of(workflow, first(workflow), {"after": "1 replied"}, {}, stop_on_reply=None)

    response = root.post(change_url(workflow), form)

    assert response.status_code == 302
    assert list(workflow.steps.values_list("position", "after")) == [(1, ""), (2, "1 replied"), (3, "")]
    assert Workflow.objects.get().stops_on == ["bounced"]


@pytest.mark.parametrize(("after", "status"), [("", 302), ("1", 200)])
def test_the_audiences_deadlines_do_for_a_lead_of_steps_that_begin(after, status, root):
    audience = cast.csv_audience("email,name,city,until\na@example.test,A,Oslo,\n", deadline_field="until")
    workflow = cast.workflow(audience=audience)

    response = root.post(change_url(workflow), form_of(workflow, first(workflow), {"after": after, "lead_seconds": 60}))

    assert response.status_code == status
    if after:
        assert "A step that waits for others needs its own" in errors_of(response)[1]["lead_seconds"]


def test_only_composers_are_offered_to_write_a_step(root):
    workflow = cast.workflow()
    composer = Engine.objects.create(name="Writer", slug="writer", kind="mock_composer")
    sender = workflow.pool.engines.get()

    page = text_of(root.get(change_url(workflow)))
    refused = root.post(change_url(workflow), form_of(workflow, first(workflow, composer=sender.pk, prompt="Write.")))

    offered = re.search(r'<select name="steps-0-composer".*?</select>', page, re.S)[0]
    assert re.findall(r'value="(\d*)"', offered) == ["", str(composer.pk)]
    assert "composer" in errors_of(refused)[0]


def test_a_saved_workflow_is_said_in_words(root, viewer):
    workflow = cast.workflow()
    cast.add_step(workflow, 2, after="1 not opened", delay="3 days")

    pages = [text_of(client.get(change_url(workflow))) for client in (root, viewer)]

    second = "2. Letters-Step-2, 3 days after 1, to who has not opened it; answers it in the same conversation."
    for page in pages:
        assert "1. Letters-News, at once." in page
        assert second in page
        assert "Who replies, or whose mail comes back, gets no more of them." in page


def test_the_page_of_a_workflow_asks_two_things_for_each_further_step_and_no_more(root):
    workflow = cast.workflow()
    cast.add_step(workflow, 2)
    root.get(change_url(workflow))  # what is asked once for all pages
    few = queries(root, change_url(workflow))
    for position in range(3, 13):
        cast.add_step(workflow, position)

    # Of each form, Django asks which template is chosen and which composers there are.
    assert queries(root, change_url(workflow)) <= few + 2 * 10


def queries(client, url):
    with CaptureQueriesContext(connection) as captured:
        assert client.get(url).status_code == 200
    return len(captured)


# ---- the recipients' own clocks ----


@pytest.mark.parametrize(
    ("window", "delay"),
    [
        ({"window_per_recipient": "on", "window_hours": "mon-fri 9-17", "window_zone_field": "time_zone"}, ""),
        ({}, "next tuesday 9:00 their time"),
    ],
    ids=["the window", "a delay"],
)
def test_recipients_without_a_time_zone_are_warned_of_when_their_clocks_are_asked_for(window, delay, root):
    workflow = cast.workflow()
    form = form_of(workflow, first(workflow, delay=delay), **window)

    response = root.post(change_url(workflow), form, follow=True)

    assert response.redirect_chain
    assert any("has no field “time_zone”" in words for words in messages_of(response))
    assert any("It has: email, name, city." in words for words in messages_of(response))


def test_nobody_is_warned_who_goes_by_the_workflows_clock_or_whose_recipients_have_time_zones(root):
    content = "email,name,city,time_zone\na@example.test,A,Oslo,Europe/Oslo\n"
    known = cast.workflow("known", audience=cast.csv_audience(content, "known"), window_per_recipient=True)
    plain = cast.workflow("plain")
    unread = cast.workflow("unread", window_per_recipient=True)
    unread.audience.kind = "sql"  # which is not asked while a page is saved

    assert [zone_warning(workflow) for workflow in (known, plain, unread)] == ["", "", ""]


# ---- the audience ----


def test_the_fields_of_dependencies_and_deadlines_are_entered_for_any_kind_of_audience(root):
    audience = cast.list_audience()
    form = {"name": "A", "slug": "a", "kind": "list", "contact_list": audience.contact_list_id}
    fields = {"key_field": "id", "depends_field": "after", "deadline_field": "until"}

    refused = root.post("/admin/campaigns/audience/add/", form | fields | {"key_field": ""})
    saved = root.post("/admin/campaigns/audience/add/", form | fields)

    assert "By which field are others named" in refused.context["adminform"].form.errors["key_field"][0]
    assert saved.status_code == 302
    kept = type(audience).objects.get(slug="a")
    assert {name: getattr(kept, name) for name in fields} == fields


def test_a_sample_shows_ids_dependencies_and_deadlines_as_they_are_read_and_bad_ones_as_bad_rows(root):
    rows = (
        'id,email,after,until\n a ,a@example.test,"b, b,c",2026-12-24T09:00:00+01:00\n'
        ",b@example.test,,\nc,c@example.test,,tomorrow\n"
    )
    audience = cast.csv_audience(rows, key_field="id", depends_field="after", deadline_field="until")

    sample = sample_of(audience)
    page = text_of(root.get(f"/admin/campaigns/audience/{audience.pk}/sample/"))

    assert sample.links == ("Id", "Depends on", "Deadline")
    assert [row.links for row in sample.rows] == [("a", "b, c", "2026-12-24 09:00:00+01:00"), (), ()]
    assert [row.problem.partition(" holds")[0] for row in sample.rows] == ["", "The field 'id'", "The field 'until'"]
    assert "<th>Depends on</th>" in page
    assert "<td>b, c</td>" in page
    assert page.count("Gets no mail:") == 2


# ---- runs ----


def run_of(steps=2, rows=(), *, state=RunState.SENDING, **batch_fields):
    """A run of so many steps, with deliveries of (step, state, pending)."""
    workflow = cast.workflow()
    batch = Batch.objects.create(
        label="Letters", reference=f"steps{Batch.objects.count()}", pool=workflow.pool, state="open", **batch_fields
    )
    messages = [
        Message.objects.create(
            batch=batch,
            token=f"{batch.reference}.{position}",
            subject=f"Subject {position}",
            position=position,
            from_address="a@b.example",
            return_path="a@b.example",
        )
        for position in range(1, steps + 1)
    ]
    Delivery.objects.bulk_create(
        Delivery(
            batch=batch,
            message=messages[step - 1],
            address=f"p{number}@example.test",
            identity=f"p{number}@example.test",
            data={},
            state=end,
            pending=pending,
        )
        for number, (step, end, pending) in enumerate(rows)
    )
    ids = Delivery.objects.filter(batch=batch).order_by("pk").values_list("pk", flat=True)
    Batch.objects.filter(pk=batch.pk).update(first_id=ids.first(), last_id=ids.last(), total=len(rows))
    frozen = [{"position": n, "template": {"name": f"Template {n}"}} for n in range(1, steps + 1)]
    run = Run.objects.create(workflow=workflow, state=state, trigger="admin", batch=batch, frozen={"steps": frozen})
    return cast.fresh(run)


def counts_of(line):
    return [cell.count for cell in line.cells]


def page_of(run):
    return reverse("admin:campaigns_run_change", args=[run.pk])


ROWS = [
    *[(1, "accepted", 0)] * 3,
    (1, "suppressed", 0),
    (2, "waiting", 0),
    (2, "waiting", 2),
    (2, "skipped", 0),
    (2, "ready", 0),
    (2, "sending", 0),
]


def test_a_run_of_several_steps_shows_where_the_mails_of_each_are(viewer):
    run = run_of(2, ROWS, sequenced=True)

    table = step_accounting.steps_of(run)
    page = text_of(viewer.get(page_of(run)))

    assert table.columns == ("accepted", "skipped", "waiting", "in work", "suppressed")
    assert [(line.position, line.template, line.total.count, counts_of(line)) for line in table.lines] == [
        (1, "Template 1", 4, [3, 0, 0, 0, 1]),
        (2, "Template 2", 5, [0, 1, 2, 2, 0]),
    ]
    assert "Template 2" in page
    listed = viewer.get(f"/admin/delivery/delivery/?batch__id__exact={run.batch_id}&state__exact=waiting&step=2")
    assert listed.context["cl"].result_list[0].state == "waiting"
    assert f"batch__id__exact={run.batch_id}&state__exact=waiting&step=2" in page
    assert "1 waits for others, or for their text." in page


def test_the_page_of_a_run_of_one_step_has_no_table_of_steps(viewer):
    run = run_of(1, [(1, "accepted", 0)] * 3)

    page = text_of(viewer.get(page_of(run)))

    assert "outreach-numbers" not in page
    assert "/steps/" not in page
    assert viewer.get(f"/admin/campaigns/run/{run.pk}/steps/").content == b""


def test_a_run_says_how_many_were_late_and_how_many_wait_for_others(viewer):
    run = run_of(1, [(1, "waiting", 1), (1, "waiting", 2), (1, "accepted", 0)], ordered=True)
    Tally.objects.create(batch=run.batch, state=LATE, shard=0, count=1200)

    assert step_accounting.asides_of(run) == [
        "2 wait for others, or for their text.",
        "1,200 went after their deadline.",
    ]
    assert "1,200 went after their deadline." in text_of(viewer.get(page_of(run)))


def test_the_steps_of_a_large_run_are_a_part_of_the_page_of_their_own_and_not_counted_with_every_look(
    viewer, monkeypatch
):
    run = run_of(2, ROWS, sequenced=True)
    fragment = f"/admin/campaigns/run/{run.pk}/steps/"
    while_small = viewer.get(fragment).content
    monkeypatch.setattr(step_accounting, "COUNTED_AT_ONCE", 5)
    cache.clear()

    page = text_of(viewer.get(page_of(run)))
    first_look = text_of(viewer.get(fragment))
    with CaptureQueriesContext(connection) as captured:
        second_look = text_of(viewer.get(fragment))

    assert while_small == b""
    assert fragment in page
    assert "Template 2" not in page
    assert "Template 2" in first_look
    assert "Counted at" in first_look
    assert first_look == second_look
    assert not [query for query in captured.captured_queries if "GROUP BY" in query["sql"]]


def test_the_steps_are_counted_by_one_statement_over_the_batchs_ids(viewer):
    run = run_of(3, ROWS, sequenced=True)

    with CaptureQueriesContext(connection) as captured:
        step_accounting.steps_of(run)

    counting = [query["sql"] for query in captured.captured_queries if "GROUP BY" in query["sql"]]
    assert len(counting) == 1
    assert f'"id" >= {run.batch.rows().earliest("pk").pk}' in counting[0]


def test_those_that_wait_are_found_by_the_index_on_them():
    run = run_of(1, [(1, "waiting", 1)] * 50 + [(1, "accepted", 0)] * 50, ordered=True)
    with CaptureQueriesContext(connection) as captured:
        step_accounting.asides_of(run)
    sql = next(query["sql"] for query in captured.captured_queries if "pending" in query["sql"])

    if connection.vendor == "sqlite":  # PostgreSQL reads a table as small as this as a whole
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN QUERY PLAN {sql}")
            assert "delivery_pending" in str(cursor.fetchall())


def test_fragments_of_steps_are_closed_to_who_may_not_view():
    run = run_of(2, ROWS)
    outsider = signed_in(staff("outsider", []))

    assert outsider.get(f"/admin/campaigns/run/{run.pk}/steps/").status_code == 403


def test_a_run_that_was_worked_on_shows_what_its_steps_came_to(viewer):
    workflow = cast.workflow()
    cast.add_step(workflow, 2, after="1", condition="city == 'Oslo'")

    run = cast.ended(workflow)

    table = step_accounting.steps_of(run)
    assert timezone.now() >= table.counted_at
    assert [counts_of(line) for line in table.lines] == [[3, 0, 0, 0], [1, 2, 0, 0]]
    assert [line.template for line in table.lines] == ["Letters-News", "Letters-Step-2"]
    assert Step.objects.filter(workflow=workflow).count() == 2
