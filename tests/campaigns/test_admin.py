"""The campaigns' admin: set up, started by a deliberate click, followed to the last recipient."""

import html
import re

import pytest
from django.apps import apps
from django.contrib.auth.models import Permission, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

from campaigns.authoring import save_version
from campaigns.models import (
    Audience,
    Contact,
    ContactList,
    Run,
    RunEvent,
    RunProblem,
    RunState,
    Step,
    Template,
    TemplateVersion,
    Trigger,
    Workflow,
)
from delivery.models import Batch, Pool, Tally

MODELS = ("workflow", "template", "templateversion", "audience", "contactlist", "contact", "run", "runproblem")


@pytest.fixture
def root(db) -> Client:
    return signed_in(User.objects.create(username="root", is_staff=True, is_superuser=True))


@pytest.fixture
def viewer(db) -> Client:
    return signed_in(staff("viewer", Permission.objects.filter(codename__startswith="view_")))


@pytest.fixture
def editor(db) -> Client:
    """May set everything up, and start nothing."""
    return signed_in(staff("editor", Permission.objects.exclude(codename="send_workflow")))


@pytest.fixture
def outsider(db) -> Client:
    return signed_in(staff("outsider", []))


def staff(name: str, permissions: object) -> User:
    user = User.objects.create(username=name, is_staff=True)
    user.user_permissions.set(permissions)
    return user


def signed_in(user: User, **kwargs: object) -> Client:
    client = Client(**kwargs)
    client.force_login(user)
    return client


def text_of(response: HttpResponse) -> str:
    return html.unescape(response.content.decode())


@pytest.fixture
def workflow(db) -> Workflow:
    contact_list = ContactList.objects.create(name="Customers", slug="customers")
    Contact.objects.create(contact_list=contact_list, address="anna@example.com", identity="anna@example.com")
    template = Template.objects.create(name="News", slug="news")
    save_version(template, subject="Hello", text="Hello", html="")
    workflow = Workflow.objects.create(
        name="Newsletter",
        slug="newsletter",
        audience=Audience.objects.create(name="All", slug="all", kind="list", contact_list=contact_list),
        pool=Pool.objects.create(name="Everyday", slug="everyday"),
        from_address="news@example.com",
    )
    Step.objects.create(workflow=workflow, template=template)
    return workflow


def run_of(workflow: Workflow, state: RunState = RunState.SENDING, total: int = 0, **ended: int) -> Run:
    """A run with a batch of `total`, of which so many have ended in the states given."""
    batch = None
    if total:
        batch = Batch.objects.create(
            label="Newsletter", reference=f"r{Run.objects.count()}", pool=workflow.pool, state="open", total=total
        )
        for name, count in ended.items():
            Tally.objects.create(batch=batch, state=name, shard=0, count=count)
    run = Run.objects.create(workflow=workflow, state=state, trigger=Trigger.ADMIN, triggered_by="root", batch=batch)
    RunEvent.objects.create(run=run, state=RunState.QUEUED, by="root", why="triggered by admin")
    return run


def page_of(run: Run) -> str:
    return reverse("admin:campaigns_run_change", args=[run.pk])


# ---- who may see what ----


@pytest.mark.parametrize("model", MODELS)
def test_lists_and_pages_open_for_who_may_view_and_for_nobody_else(model, workflow, root, viewer, outsider):
    RunProblem.objects.create(run=run_of(workflow), kind="bad_row", reason="no_address", position=1, detail="Empty.")
    row = apps.get_model("campaigns", model).objects.first()
    urls = [
        reverse(f"admin:campaigns_{model}_changelist"),
        reverse(f"admin:campaigns_{model}_change", args=[row.pk]),
    ]

    statuses = {
        who: [client.get(url).status_code for url in urls]
        for who, client in {"root": root, "viewer": viewer, "outsider": outsider, "nobody": Client()}.items()
    }

    assert statuses == {"root": [200, 200], "viewer": [200, 200], "outsider": [403, 403], "nobody": [302, 302]}


@pytest.mark.parametrize("model", MODELS)
def test_an_empty_list_says_what_it_is_for(model, root):
    assert "Nothing here yet" in text_of(root.get(reverse(f"admin:campaigns_{model}_changelist")))


@pytest.mark.parametrize(
    ("model", "status"),
    [
        ("workflow", 200),
        ("template", 200),
        ("audience", 200),
        ("contactlist", 200),
        ("contact", 200),
        ("run", 403),
        ("templateversion", 403),
        ("runproblem", 403),
    ],
)
def test_only_what_an_operator_sets_up_can_be_added(model, status, root, viewer):
    url = reverse(f"admin:campaigns_{model}_add")

    assert (root.get(url).status_code, viewer.get(url).status_code) == (status, 403)


def test_fragments_are_closed_to_who_may_not_view(workflow, outsider):
    urls = [
        f"/admin/campaigns/audience/{workflow.audience_id}/sample/",
        f"/admin/campaigns/run/{run_of(workflow).pk}/progress/",
    ]

    assert [outsider.get(url).status_code for url in urls] == [403, 403]
    assert [Client().get(url).status_code for url in urls] == [302, 302]


@pytest.mark.parametrize("path", ["", "add/", "{}/change/", "{}/password/"])
def test_people_have_their_pages(path, root):
    user = User.objects.get(username="root")

    assert root.get(f"/admin/auth/user/{path.format(user.pk)}").status_code == 200


# ---- starting a run ----

CONFIRMED = {"_form_submitted": "True"}


def run_now(workflow: Workflow) -> str:
    return f"/admin/campaigns/workflow/{workflow.pk}/run-now/"


def test_run_now_asks_first_and_starts_nothing_on_a_get(workflow, root):
    response = root.get(run_now(workflow))

    assert response.status_code == 200
    assert "Run this workflow now?" in text_of(response)
    assert "csrfmiddlewaretoken" in text_of(response)
    assert not Run.objects.exists()


def test_run_now_confirmed_starts_a_run_and_leads_to_its_page(workflow, root):
    response = root.post(run_now(workflow), CONFIRMED)

    run = Run.objects.get()
    assert response.headers["Location"] == page_of(run)
    assert (run.workflow, run.trigger, run.triggered_by, run.test_limit) == (workflow, "admin", "root", None)


def test_the_dialog_in_the_browser_is_led_on_by_htmx(workflow, root):
    response = root.post(run_now(workflow), CONFIRMED, headers={"HX-Request": "true"})

    assert (response.status_code, response.headers["HX-Redirect"]) == (200, page_of(Run.objects.get()))


def test_run_now_without_the_forms_token_is_refused(workflow, root):
    strict = signed_in(User.objects.get(username="root"), enforce_csrf_checks=True)

    assert strict.post(run_now(workflow), CONFIRMED).status_code == 403
    assert not Run.objects.exists()


def test_who_may_change_a_workflow_may_not_start_it(workflow, editor):
    page = editor.get(f"/admin/campaigns/workflow/{workflow.pk}/change/")
    answers = [
        editor.post(run_now(workflow), CONFIRMED),
        editor.post(f"/admin/campaigns/workflow/{workflow.pk}/test-run/", CONFIRMED | {"recipients": 1}),
    ]

    assert page.status_code == 200
    assert "run-now" not in text_of(page)
    assert [answer.status_code for answer in answers] == [403, 403]
    assert not Run.objects.exists()


def test_a_test_run_takes_as_many_recipients_as_asked_for(workflow, root):
    url = f"/admin/campaigns/workflow/{workflow.pk}/test-run/"

    refused = root.post(url, CONFIRMED | {"recipients": 0})
    root.post(url, CONFIRMED | {"recipients": 7})

    assert "greater than or equal to 1" in text_of(refused)
    assert [run.test_limit for run in Run.objects.all()] == [7]


def test_a_refused_start_is_explained_on_the_workflows_page(workflow, root):
    workflow.steps.all().delete()

    response = root.post(run_now(workflow), CONFIRMED, follow=True)

    assert response.redirect_chain[-1][0] == f"/admin/campaigns/workflow/{workflow.pk}/change/"
    assert "has no step: add one with a template." in text_of(response)


def test_a_workflow_is_saved_with_its_one_message(workflow, root):
    form = {
        "name": "Second",
        "slug": "second",
        "audience": workflow.audience_id,
        "pool": workflow.pool_id,
        "from_address": "news@example.com",
        "priority": 0,
        "start": "at_once",
        "time_limit_minutes": 90,
        "on_uncertain": "hold",
        "on_render_error": "stop",
        "steps-TOTAL_FORMS": 1,
        "steps-INITIAL_FORMS": 0,
        "steps-0-template": "",
    }

    without = root.post("/admin/campaigns/workflow/add/", form)
    complete = root.post("/admin/campaigns/workflow/add/", form | {"steps-0-template": Template.objects.get().pk})

    assert (without.status_code, complete.status_code) == (200, 302)
    kept = Workflow.objects.get(slug="second")
    assert (kept.steps.get().position, kept.start, kept.time_limit_minutes) == (1, "at_once", 90)


# ---- templates ----

WORDS = {"name": "News", "slug": "news", "subject": "Hello {{ first_name }}", "text": "", "html": "<p>Hi</p>"}


def test_saving_a_template_makes_a_version_by_whoever_saved_it(root):
    response = root.post("/admin/campaigns/template/add/", WORDS)

    version = TemplateVersion.objects.get()
    assert response.status_code == 302
    assert (version.number, version.subject, version.html) == (1, WORDS["subject"], "<p>Hi</p>")
    assert (version.text_from_html, version.created_by.username) == (True, "root")


def test_only_other_words_make_another_version(root):
    root.post("/admin/campaigns/template/add/", WORDS | {"html": "<p>\r\nHi</p>"})
    url = f"/admin/campaigns/template/{Template.objects.get().pk}/change/"

    root.post(url, WORDS | {"name": "Renamed", "html": "<p>\nHi</p>"})
    root.post(url, WORDS | {"html": "<p>Bye</p>"})

    assert list(TemplateVersion.objects.values_list("number", "html")) == [(2, "<p>Bye</p>"), (1, "<p>\nHi</p>")]


@pytest.mark.parametrize(
    ("part", "source", "where"),
    [
        ("subject", "Hello {{ name", "The subject does not compile, line 1"),
        ("text", "Hello\n\n{% if %}", "The text does not compile, line 3"),
        ("html", "<p>\n{{ name|nosuchfilter }}</p>", "The HTML, line 2: there is no filter `nosuchfilter`"),
    ],
)
def test_a_mistake_is_shown_at_its_field_with_its_line_and_nothing_is_saved(part, source, where, root):
    response = root.post("/admin/campaigns/template/add/", WORDS | {part: source})

    errors = response.context["adminform"].form.errors
    assert list(errors) == [part]
    assert where in errors[part][0]
    assert where in text_of(response)
    assert not Template.objects.exists()


def test_a_template_without_any_content_is_refused(root):
    response = root.post("/admin/campaigns/template/add/", WORDS | {"html": " "})

    assert "Write a text, an HTML part, or both." in text_of(response)


def test_a_templates_page_lists_its_versions_and_shows_the_latest_words(root):
    template = Template.objects.create(name="News", slug="news")
    for words in ("First", "Second"):
        save_version(template, subject=words, text="x", html="", by=User.objects.get())

    page = text_of(root.get(f"/admin/campaigns/template/{template.pk}/change/"))

    assert re.search(r'name="subject" value="Second"', page)
    assert re.findall(r">v(\d)</a>", page) == ["2", "1"]


def test_a_version_is_shown_as_text_and_is_neither_changed_nor_deleted(root):
    template = Template.objects.create(name="News", slug="news")
    version = save_version(template, subject="Hello", text="", html="<script>alert(1)</script><p>Hi</p>")
    url = f"/admin/campaigns/templateversion/{version.pk}/"

    page = root.get(f"{url}change/").content.decode()
    answers = [root.post(f"{url}change/", {"subject": "Other"}), root.post(f"{url}delete/", {"post": "yes"})]

    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert(1)" not in page
    assert [answer.status_code for answer in answers] == [403, 403]
    assert TemplateVersion.objects.get().subject == "Hello"


# ---- audiences and contacts ----

CSV = b"email,first_name\nanna@example.com,Anna\nnot an address,Bert\n"


def upload(client: Client, content: bytes = CSV) -> HttpResponse:
    file = SimpleUploadedFile("people.csv", content)
    return client.post("/admin/campaigns/audience/add/", {"name": "Fair", "slug": "fair", "kind": "csv", "file": file})


def sample(client: Client) -> str:
    return text_of(client.get(f"/admin/campaigns/audience/{Audience.objects.get().pk}/sample/"))


def test_an_uploaded_file_becomes_the_audience_and_its_sample_marks_the_bad_rows(root):
    response = upload(root)

    shown = sample(root)
    assert response.status_code == 302
    assert Audience.objects.get().upload.filename == "people.csv"
    assert "<td>anna@example.com</td>" in shown
    assert "Gets no mail: There is no @ in it." in shown
    assert "not an address,Bert" in shown


def test_a_sample_ends_after_ten_rows(root):
    upload(root, b"email\n" + b"".join(b"p%d@example.com\n" % i for i in range(1000)))

    assert sample(root).count("<tr>") == 11  # the headings', too


def test_a_file_audience_needs_its_file_only_once(root):
    missing = root.post("/admin/campaigns/audience/add/", {"name": "Fair", "slug": "fair", "kind": "csv"})
    upload(root)
    audience = Audience.objects.get()
    kept = root.post(
        f"/admin/campaigns/audience/{audience.pk}/change/", {"name": "Renamed", "slug": "fair", "kind": "csv"}
    )

    assert "Choose the file." in text_of(missing)
    assert kept.status_code == 302
    assert Audience.objects.get().upload.size == len(CSV)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"kind": "csv"}, "it has no file. Upload one."),
        ({"kind": "list"}, "it has no contact list. Choose one."),
        ({"kind": "sql", "connection": "gone", "query": "SELECT 1"}, "there is no connection 'gone'"),
    ],
)
def test_an_audience_that_cannot_be_read_says_so_in_a_sentence(values, sentence, root):
    audience = Audience.objects.create(name="Broken", slug="broken", **values)

    assert sentence in sample(root)
    assert root.get(f"/admin/campaigns/audience/{audience.pk}/change/").status_code == 200


def test_a_file_that_is_no_text_is_explained_and_not_a_server_error(root):
    upload(root, b"email\n\xff\xfe\xff@example.com\n")

    assert "outreach-error" in sample(root)


def test_settings_that_cannot_work_are_refused_at_their_field(root):
    form = {"name": "A", "slug": "a", "kind": "list", "contact_list": ""}

    response = root.post("/admin/campaigns/audience/add/", form)

    assert response.context["adminform"].form.errors == {"contact_list": ["Choose the list."]}


def test_a_contact_is_kept_in_its_normal_form_and_once_per_list(root):
    contact_list = ContactList.objects.create(name="Customers", slug="customers")
    form = {"contact_list": contact_list.pk, "address": "Anna@EXAMPLE.com", "name": "Anna", "attributes": "{}"}

    first = root.post("/admin/campaigns/contact/add/", form)
    again = root.post("/admin/campaigns/contact/add/", form | {"address": "anna@example.com"})

    assert (first.status_code, again.status_code) == (302, 200)
    assert list(Contact.objects.values_list("address", "identity")) == [("Anna@example.com", "anna@example.com")]


def test_a_contact_list_says_how_many_are_on_it_and_leads_to_them(workflow, root):
    page = text_of(root.get("/admin/campaigns/contactlist/"))
    listed = root.get(
        f"/admin/campaigns/contact/?contact_list__id__exact={workflow.audience.contact_list_id}&q=anna@example.com"
    )

    assert re.search(r'href="/admin/campaigns/contact/\?contact_list__id__exact=\d+">1</a>', page)
    assert [contact.address for contact in listed.context["cl"].result_list] == ["anna@example.com"]


# ---- runs ----


def equation_of(page: str) -> list[tuple[str, str]]:
    return re.findall(r"<b>([\d,]+)</b> ([a-z ]+)", page)


def test_a_runs_page_accounts_for_every_recipient_and_links_to_each_group(workflow, root):
    run = run_of(workflow, total=5000, accepted=4000, rejected=30, dead=2, uncertain=1)

    page = text_of(root.get(page_of(run)))

    assert equation_of(page) == [
        ("5,000", "total"),
        ("4,000", "accepted"),
        ("30", "rejected"),
        ("0", "suppressed"),
        ("0", "expired"),
        ("0", "skipped"),
        ("0", "cancelled"),
        ("2", "dead letter"),
        ("1", "uncertain"),
        ("967", "still open"),
    ]
    list_of_batch = f"/admin/delivery/delivery/?batch__id__exact={run.batch_id}"
    assert set(re.findall(rf'href="{re.escape(list_of_batch)}([^"]*)"', page)) == {
        "",
        "&state__exact=accepted",
        "&state__exact=rejected",
        "&state__exact=dead",
        "&state__exact=uncertain",
        "&state__exact=open",
    }


def test_numbers_that_do_not_add_up_are_not_shown_as_if_they_did(workflow, root):
    short = run_of(workflow, RunState.COMPLETED, total=10, accepted=9)
    exact = run_of(workflow, RunState.COMPLETED, total=10, accepted=10)
    Batch.objects.update(state="done")

    assert "do not add up" in text_of(root.get(page_of(short)))
    assert "do not add up" not in text_of(root.get(page_of(exact)))


def test_a_runs_page_tells_its_history_its_error_and_who_was_left_out(workflow, root):
    run = run_of(workflow, RunState.FAILED)
    Run.objects.update(error="The template needs 'x'.", problem_counts={"no_address": 120, "duplicate": 3})
    RunProblem.objects.bulk_create(
        RunProblem(run=run, kind="bad_row", reason="no_address", position=i, detail=f"Row {i} is empty.")
        for i in range(60)
    )

    page = text_of(root.get(page_of(run)))

    assert "The template needs 'x'." in page
    assert "<b>queued</b> by root: triggered by admin" in page
    assert "Left out: 123 rows" in page
    assert re.findall(r"<li><b>(\d+)</b> ([a-z ]+)</li>", page) == [("120", "no address"), ("3", "duplicate")]
    assert page.count("is empty.") == 50
    assert f"/admin/campaigns/runproblem/?run__id__exact={run.pk}" in page


ACTIONS = ("pause", "resume", "cancel")


@pytest.mark.parametrize(
    ("state", "offered"),
    [
        (RunState.QUEUED, ["cancel"]),
        (RunState.INITIALIZING, ["cancel"]),
        (RunState.SENDING, ["pause", "cancel"]),
        (RunState.PAUSED, ["resume", "cancel"]),
        (RunState.COMPLETED, []),
        (RunState.FAILED, []),
        (RunState.CANCELLED, []),
    ],
)
def test_a_run_offers_what_is_legal_in_its_state_to_who_may_do_it(state, offered, workflow, root, viewer):
    run = run_of(workflow, state)

    def offers(client: Client) -> list[str]:
        page = text_of(client.get(page_of(run)))
        return [name for name in ACTIONS if f"/admin/campaigns/run/{run.pk}/{name}/" in page]

    assert offers(root) == offered
    assert offers(viewer) == []


def test_a_run_is_paused_resumed_and_cancelled_with_a_reason_in_its_history(workflow, root):
    run = run_of(workflow, total=10)

    for deed in ACTIONS:
        root.get(f"/admin/campaigns/run/{run.pk}/{deed}/")  # asks, and does nothing
        root.post(f"/admin/campaigns/run/{run.pk}/{deed}/", CONFIRMED | {"why": f"to {deed}"})

    events = list(run.events.values_list("state", "by", "why"))[1:]
    assert events == [
        ("paused", "root", "to pause"),
        ("sending", "root", "to resume"),
        ("cancelled", "root", "to cancel"),
    ]


def test_a_move_that_has_become_illegal_is_explained(workflow, root):
    run = run_of(workflow, RunState.COMPLETED)

    response = root.post(f"/admin/campaigns/run/{run.pk}/pause/", CONFIRMED, follow=True)

    assert "only a run that is sending can become paused" in text_of(response)


def test_who_may_only_look_cannot_pause_resume_or_cancel(workflow, viewer):
    run = run_of(workflow)

    answers = [viewer.post(f"/admin/campaigns/run/{run.pk}/{deed}/", CONFIRMED).status_code for deed in ACTIONS]

    assert answers == [403, 403, 403]
    assert Run.objects.get().state == RunState.SENDING


def test_the_moving_part_asks_again_until_the_run_is_over(workflow, viewer):
    going, over = run_of(workflow, total=10, accepted=5), run_of(workflow, RunState.COMPLETED, total=10, accepted=10)

    fragments = [viewer.get(f"/admin/campaigns/run/{run.pk}/progress/?state={run.state}") for run in (going, over)]

    assert ["every 2s" in text_of(fragment) for fragment in fragments] == [True, False]
    assert ["HX-Refresh" in fragment.headers for fragment in fragments] == [False, False]


def test_the_whole_page_is_made_anew_when_the_state_has_changed(workflow, viewer):
    run = run_of(workflow, RunState.COMPLETED, total=10, accepted=10)

    assert viewer.get(f"/admin/campaigns/run/{run.pk}/progress/?state=sending").headers["HX-Refresh"] == "true"


def test_the_list_of_runs_shows_how_far_each_is(workflow, root):
    run_of(workflow, total=5000, accepted=1234)

    page = text_of(root.get("/admin/campaigns/run/"))

    assert "1,234 of 5,000" in page


# ---- the first page ----


def test_a_fresh_installation_is_told_what_to_do_first(root):
    steps = root.get("/admin/").context["first_steps"]

    assert [(step.title, step.done) for step in steps] == [
        ("Add an engine", False),
        ("Add a pool", False),
        ("Write a template", False),
        ("Add an audience", False),
        ("Add a workflow", False),
    ]


def test_the_first_page_shows_runs_and_no_first_steps_once_there_is_a_workflow(workflow, root):
    run_of(workflow, total=10, accepted=4)

    response = root.get("/admin/")

    assert "first_steps" not in response.context
    assert "4 of 10" in text_of(response)


def test_the_first_page_shows_nothing_to_who_may_view_nothing(workflow, outsider):
    run_of(workflow, total=10, accepted=4)

    response = outsider.get("/admin/")

    assert response.status_code == 200
    assert "Newsletter" not in text_of(response)
