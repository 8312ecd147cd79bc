"""HTTP audiences as they are stored: refused when saved, read by runs, and remembered as far as a run has read them."""

import json
from collections.abc import Iterator

import pytest
from django.contrib.auth.models import Permission, User
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.test import Client

from campaigns import control
from campaigns.audiences.bookmarks import reset_bookmark, source_read_to_the_end
from campaigns.audiences.exceptions import AudienceRefused
from campaigns.audiences.stored import open_source
from campaigns.initialize import Stopping, initialize
from campaigns.models import Audience, AudienceBookmark, AudienceKind, Run, RunState, Start, Workflow
from delivery.secrets import Sealed
from tests.campaigns import cast
from tests.campaigns.list_api import LOOPBACK, PAGE, addresses, api, asked, people
from tests.delivery.admin_pages import CONFIRMED
from tests.delivery.http_server import Received, Server, answer

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("output_dir")]

TOKEN = "t0ken-0f-mine"
FIELDS = "email = email\nname = name\nid = id : integer"
NEW_ONLY = {"fields": FIELDS, "since_path": "id", "since_type": "integer", "since_parameter": "after"}


class Api:
    """A list that grows: pages by number, items after an id, for who has the token. Breaks when told to."""

    def __init__(self) -> None:
        self.people = people(5)
        self.broken_at = 0  # the page that is no JSON; 0: none
        self.inclusive = False
        self.server = Server()

    def respond(self, request: Received) -> bytes:
        query = asked(request)
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return answer(401, {"error": "who are you?"})
        after, page = int(query.get("after", 0)), int(query["page"])
        if page == self.broken_at:
            return answer(200, b"<html>")
        left = [person for person in self.people if person["id"] > after - self.inclusive]
        return answer(200, {"people": left[(page - 1) * PAGE : page * PAGE]})

    @property
    def afters(self) -> list[str | None]:
        """What was asked for as new, once for each reading."""
        return [asked(request).get("after") for request in self.server.received if asked(request)["page"] == "1"]


@pytest.fixture
def people_api(outreach) -> Iterator[Api]:
    outreach(ALLOWED_NETWORKS=LOOPBACK)
    told = Api()
    with api(told.respond) as server:
        told.server = server
        yield told


def http_audience(told: Api, slug: str = "people", **options: object) -> Audience:
    """The audience of that API, saved as admin and API do it."""
    given = {"url": told.server.url, "items": "people", "auth": "bearer", "paging": "page", "page_parameter": "page"}
    audience = Audience(
        name=slug.title(),
        slug=slug,
        kind=AudienceKind.HTTP,
        options=given | options,
        secrets=Sealed.seal({"credential": TOKEN}),
    )
    audience.full_clean()
    audience.save()
    return Audience.objects.get(pk=audience.pk)


def workflow_for(audience: Audience, slug: str = "letters", **settings: object) -> Workflow:
    version = cast.template(f"{slug}-news", text="Hello {{ name }}")
    return cast.workflow(slug, audience=audience, version=version, **settings)


def bookmark_of(audience: Audience) -> str:
    stored = AudienceBookmark.objects.filter(audience=audience).first()
    return stored.value if stored else ""


# --- Runs ------------------------------------------------------------------------------------------------------------


def test_a_run_writes_to_everybody_of_the_list_and_reports_who_cannot_be_one(people_api):
    people_api.people[1]["email"] = "nobody"
    people_api.people[3]["id"] = "x"
    people_api.people[3] = {"id": 4, "name": 7}

    run = cast.initialized(workflow_for(http_audience(people_api, fields="email = email : optional\nname = name")))

    assert run.state == RunState.SENDING
    assert cast.recipients(run) == [f"p{n}@example.test" for n in (1, 3, 5)]
    assert list(run.problems.values_list("reason", "position")) == [("impossible_address", 2), ("no_address", 4)]


def test_a_list_that_breaks_off_fails_the_run_and_nobody_gets_a_mail(people_api):
    people_api.broken_at = 2

    run = cast.initialized(workflow_for(http_audience(people_api)))

    assert (run.state, run.batch) == (RunState.FAILED, None)
    assert run.error == (
        f"audience 'People' ({people_api.server.url}), page 2: the answer is no JSON (Expecting value, line 1, column "
        "1). See that the URL is the one of the list, and not of a page for people or of a login."
    )


def test_a_template_with_a_variable_that_no_field_gives_is_refused_before_a_page_is_read(people_api):
    audience = http_audience(people_api, fields=FIELDS)
    workflow = cast.workflow(audience=audience, version=cast.template(text="{{ city }}"))

    run = cast.initialized(workflow)

    assert run.state == RunState.FAILED
    assert "city" in run.error
    assert people_api.server.received == []


@pytest.mark.parametrize("database_sees", ["audience", "everything"])
def test_the_credential_is_nowhere_in_the_database_nor_in_what_dumpdata_writes(people_api, database_sees, capsys):
    run = cast.initialized(workflow_for(http_audience(people_api)))
    assert run.state == RunState.SENDING

    call_command("dumpdata", *(["campaigns.audience"] if database_sees == "audience" else ["campaigns", "delivery"]))

    written = capsys.readouterr().out
    assert people_api.server.url in written
    assert TOKEN not in written


def test_a_credential_whose_key_is_gone_refuses_the_audience_in_a_sentence(people_api, outreach):
    audience = http_audience(people_api)
    outreach(SECRET_KEYS=["Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9vYmFyYmE="])

    with pytest.raises(AudienceRefused, match="The stored credentials cannot be decrypted"):
        open_source(audience)


# --- Only what is new -------------------------------------------------------------------------------------------------


def test_the_next_run_gets_only_who_is_new_since_the_last_one(people_api):
    workflow = workflow_for(http_audience(people_api, **NEW_ONLY))
    first = cast.initialized(workflow)
    people_api.people += people(2, start=6)

    second = cast.initialized(workflow)

    assert cast.recipients(first) == addresses(5)
    assert cast.recipients(second) == addresses(2, start=6)
    assert people_api.afters == [None, "5"]
    stored = AudienceBookmark.objects.get()
    assert (stored.value, stored.run_id, stored.version) == ("7", second.pk, 2)


def test_an_api_that_sends_the_last_one_again_does_not_make_him_get_two_mails(people_api):
    people_api.inclusive = True
    workflow = workflow_for(http_audience(people_api, **NEW_ONLY))
    cast.initialized(workflow)
    people_api.people += people(1, start=6)

    second, third = cast.initialized(workflow), cast.initialized(workflow)

    assert cast.recipients(second) == addresses(1, start=6)
    assert (cast.recipients(third), third.state) == ([], RunState.COMPLETED)
    assert people_api.afters == [None, "5", "6"]


def test_a_run_with_nobody_new_completes_with_nobody(people_api):
    workflow = workflow_for(http_audience(people_api, **NEW_ONLY))
    cast.initialized(workflow)

    run = cast.initialized(workflow)

    assert (run.state, run.rows_read, run.error) == (RunState.COMPLETED, 0, "")
    assert bookmark_of(workflow.audience) == "5"


def test_the_bookmark_moves_in_the_same_moment_in_which_the_run_is_filled_and_not_before(people_api):
    audience = http_audience(people_api, **NEW_ONLY)
    run = cast.queued(workflow_for(audience))
    seen = []

    assert initialize(run.pk, lambda rows: seen.append((rows, bookmark_of(audience))))

    assert seen == [(5, "")]
    assert bookmark_of(audience) == "5"


def test_a_list_that_breaks_off_moves_nothing_and_the_next_run_gets_everybody(people_api):
    workflow = workflow_for(http_audience(people_api, **NEW_ONLY))
    people_api.broken_at = 2
    failed = cast.initialized(workflow)
    people_api.broken_at = 0

    run = cast.initialized(workflow)

    assert failed.state == RunState.FAILED
    assert cast.recipients(run) == addresses(5)
    assert people_api.afters == [None, None]


def test_recipients_that_cannot_be_rendered_fail_the_run_and_move_nothing(people_api):
    audience = http_audience(people_api, **NEW_ONLY)
    version = cast.template(text="{{ 1 / (id - 3) }}")

    run = cast.initialized(cast.workflow(audience=audience, version=version))

    assert run.state == RunState.FAILED
    assert not AudienceBookmark.objects.exists()


def test_a_run_that_is_cancelled_while_it_is_filled_moves_nothing(people_api):
    audience = http_audience(people_api, **NEW_ONLY)
    run = cast.queued(workflow_for(audience))

    done = initialize(run.pk, between=lambda: control.cancel(Run.objects.get(pk=run.pk), "tester", "wrong"))

    assert not done
    assert cast.fresh(run).state == RunState.CANCELLED
    assert not AudienceBookmark.objects.exists()


def test_a_run_whose_process_stops_moves_nothing_until_another_one_has_filled_it(people_api):
    audience = http_audience(people_api, **NEW_ONLY)
    run = cast.queued(workflow_for(audience, start=Start.AT_ONCE))

    def stop() -> None:
        raise Stopping

    with pytest.raises(Stopping):
        initialize(run.pk, between=stop)
    assert bookmark_of(audience) == ""
    assert cast.fresh(run).state == RunState.SENDING

    assert initialize(run.pk)

    assert bookmark_of(audience) == "5"
    assert cast.recipients(cast.fresh(run)) == addresses(5)
    assert people_api.afters == [None, None]


@pytest.mark.parametrize("limit", [2, 5, 100])
def test_a_test_moves_nothing_even_when_it_has_read_everybody(people_api, limit):
    audience = http_audience(people_api, **NEW_ONLY)

    run = cast.initialized(workflow_for(audience), test_limit=limit)

    assert len(cast.recipients(run)) == min(limit, 5)
    assert not AudienceBookmark.objects.exists()


def test_two_runs_that_read_the_same_people_do_not_both_go_out(people_api):
    audience = http_audience(people_api, **NEW_ONLY)
    one, other = workflow_for(audience, "one"), workflow_for(audience, "other")
    second = cast.queued(other)

    run = cast.queued(one)
    assert initialize(run.pk, between=lambda: initialize(second.pk))

    assert cast.fresh(second).state == RunState.SENDING
    failed = cast.fresh(run)
    assert (failed.state, failed.batch) == (RunState.FAILED, None)
    assert "another run has read it meanwhile, so that both would write to the same people" in failed.error
    assert AudienceBookmark.objects.get().run_id == second.pk


def test_a_reset_lets_the_next_run_read_from_the_beginning(people_api):
    workflow = workflow_for(http_audience(people_api, **NEW_ONLY))
    cast.initialized(workflow)

    assert reset_bookmark(workflow.audience)
    assert not reset_bookmark(workflow.audience)

    assert cast.recipients(cast.initialized(workflow)) == addresses(5)
    assert people_api.afters == [None, None]


def test_a_reset_during_a_run_is_not_undone_by_it(people_api):
    workflow = workflow_for(http_audience(people_api, **NEW_ONLY))
    cast.initialized(workflow)
    people_api.people += people(1, start=6)
    run = cast.queued(workflow)

    assert initialize(run.pk, between=lambda: reset_bookmark(workflow.audience))

    assert cast.fresh(run).state == RunState.SENDING
    assert cast.recipients(cast.fresh(run)) == addresses(1, start=6)
    assert bookmark_of(workflow.audience) == ""


def test_an_item_that_does_not_say_how_new_it_is_is_a_bad_row_and_the_others_count(people_api):
    people_api.people[2]["id"] = 3.5

    workflow = workflow_for(http_audience(people_api, **NEW_ONLY))
    run = cast.initialized(workflow)

    assert list(run.problems.values_list("reason", "position", "detail")) == [
        ("wrong_value", 3, f"The value at id holds 3.5, which is no integer. ({json.dumps(people_api.people[2])})")
    ]
    assert bookmark_of(workflow.audience) == "5"


def test_a_run_of_another_kind_of_audience_has_no_bookmark():
    run = cast.initialized(cast.workflow())

    source_read_to_the_end(run)

    assert not AudienceBookmark.objects.exists()


def test_a_bookmark_goes_with_its_audience(people_api):
    audience = http_audience(people_api, **NEW_ONLY)
    AudienceBookmark.objects.create(audience=audience, value="5")

    audience.delete()

    assert not AudienceBookmark.objects.exists()


# --- Saving ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "setting", "words"),
    [
        ({"url": "https://10.0.0.7/"}, "url", "OUTREACH_ALLOWED_NETWORKS"),
        ({"fields": "mail = email\nname = name"}, "", ""),
        ({"fields": "who = email"}, "fields", "no column holds the address; there are 'who'"),
        ({"fields": "email = email : integer"}, "fields", "'email' must be a text: write email = email."),
        ({"paging": "cursor"}, "next_path", "such as meta.next_cursor"),
    ],
)
def test_settings_that_cannot_work_are_refused_when_they_are_saved_at_their_place(people_api, options, setting, words):
    if not setting:
        http_audience(people_api, **options)
        return

    with pytest.raises(ValidationError) as refused:
        http_audience(people_api, **options)

    found = {error.code: error.message for error in refused.value.error_dict["options"]}
    assert words in found[setting]
    assert found[setting].startswith(f"{setting}: ")


def test_a_bookmark_that_is_not_of_the_type_chosen_refuses_the_change(people_api):
    audience = http_audience(people_api, **NEW_ONLY)
    AudienceBookmark.objects.create(audience=audience, value="5.5", version=1)

    with pytest.raises(ValidationError, match=r"It was read up to “5\.5”, which is no integer"):
        audience.full_clean()
    with pytest.raises(AudienceRefused, match=r"It was read up to “5\.5”, which is no integer\. Choose the type"):
        list(open_source(audience).rows())


def test_what_was_saved_and_may_not_be_reached_any_more_is_refused_when_it_is_read(people_api, outreach):
    audience = http_audience(people_api)
    outreach(ALLOWED_NETWORKS=[])

    with pytest.raises(AudienceRefused, match=r"its setting url cannot be used: 127\.0\.0\.1 is not a public address"):
        open_source(audience)
    assert people_api.server.received == []


# --- Admin -----------------------------------------------------------------------------------------------------------

ADD = "/admin/campaigns/audience/add/"


@pytest.fixture
def root() -> Client:
    client = Client()
    client.force_login(User.objects.create(username="root", is_staff=True, is_superuser=True))
    return client


def form(told: Api, **given: object) -> dict[str, object]:
    usual = {
        "name": "People",
        "slug": "people",
        "kind": "http",
        "http_url": told.server.url,
        "http_items": "people",
        "http_auth": "bearer",
        "http_credential": TOKEN,
        "http_paging": "page",
        "http_page_parameter": "page",
        "http_page_size": "50",
        "http_fields": FIELDS,
    }
    return usual | given


def change(audience: Audience) -> str:
    return f"/admin/campaigns/audience/{audience.pk}/change/"


def test_the_form_makes_an_audience_whose_sample_shows_what_comes_out(people_api, root):
    people_api.people[1]["email"] = "nobody"

    response = root.post(ADD, form(people_api))

    assert response.status_code == 302, response.context["adminform"].form.errors
    audience = Audience.objects.get()
    assert audience.options == {
        "url": people_api.server.url,
        "items": "people",
        "auth": "bearer",
        "paging": "page",
        "page_parameter": "page",
        "page_size": 50,
        "fields": FIELDS.replace("\n", "\r\n") if "\r\n" in audience.options["fields"] else FIELDS,
    }
    assert audience.secrets.open() == {"credential": TOKEN}
    sample = root.get(f"/admin/campaigns/audience/{audience.pk}/sample/").content.decode()
    assert "<td>p1@example.test</td>" in sample
    assert "Gets no mail: There is no @ in it." in sample
    assert not AudienceBookmark.objects.exists()


def test_a_sample_does_not_keep_who_waits_for_it_waiting_for_further_tries(outreach, root):
    outreach(ALLOWED_NETWORKS=LOOPBACK)

    with api(lambda request: answer(503, b"moving")) as server:
        audience = Audience.objects.create(name="A", slug="a", kind=AudienceKind.HTTP, options={"url": server.url})
        sample = root.get(f"/admin/campaigns/audience/{audience.pk}/sample/").content.decode()

    assert "it answered 503 moving (tries: 1)" in sample
    assert len(server.received) == 1


@pytest.mark.parametrize("path", ["change/", "sample/", "history/"])
def test_no_page_shows_the_credential(people_api, root, path):
    root.post(ADD, form(people_api))
    audience = Audience.objects.get()

    pages = [root.get(f"/admin/campaigns/audience/{audience.pk}/{path}"), root.get("/admin/campaigns/audience/")]

    assert [page.status_code for page in pages] == [200, 200]
    assert all(TOKEN not in page.content.decode() for page in pages)
    assert all(audience.secrets.token not in page.content.decode() for page in pages)


def test_a_form_that_is_refused_does_not_send_the_credential_back_and_asks_for_it_again(people_api, root):
    response = root.post(ADD, form(people_api, http_paging="cursor"))

    errors = response.context["adminform"].form.errors
    assert set(errors) == {"http_next_path", "http_credential"}
    assert "such as meta.next_cursor" in errors["http_next_path"][0]
    assert "Enter it again" in errors["http_credential"][0]
    assert TOKEN not in response.content.decode()
    assert not Audience.objects.exists()


def test_an_empty_credential_keeps_the_stored_one_and_no_authentication_forgets_it(people_api, root):
    root.post(ADD, form(people_api))
    audience = Audience.objects.get()

    kept = root.post(change(audience), form(people_api, http_credential="", name="Renamed"))
    after = Audience.objects.get()
    forgotten = root.post(change(audience), form(people_api, http_credential="", http_auth="none"))

    assert (kept.status_code, after.name, after.secrets.open()) == (302, "Renamed", {"credential": TOKEN})
    assert forgotten.status_code == 302
    assert not Audience.objects.get().secrets


def test_who_points_the_url_elsewhere_has_to_know_the_credential(people_api, root):
    root.post(ADD, form(people_api))
    audience = Audience.objects.get()

    there = form(people_api, http_credential="", http_url="https://elsewhere.example/people")
    response = root.post(change(audience), there)

    assert "The URL leads elsewhere now" in response.context["adminform"].form.errors["http_credential"][0]
    assert Audience.objects.get().options["url"] == people_api.server.url
    assert root.post(change(audience), there | {"http_credential": "another"}).status_code == 302


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"http_url": "http://api.example/%20"}, "http_url"),
        ({"http_fields": "email : text"}, "http_fields"),
        ({"http_fields": "who = email"}, "http_fields"),
        ({"http_page_size": "0"}, "http_page_size"),
        ({"http_headers": "nothing"}, "http_headers"),
        ({"http_auth": "header"}, "http_key_name"),
        ({"http_auth": "magic"}, "http_auth"),
        ({"http_since_path": "id"}, "http_since_parameter"),
        ({"http_credential": "with spaces "}, ""),
        ({"http_credential": "", "http_auth": "bearer"}, "http_credential"),
        ({"http_url": ""}, "http_url"),
    ],
)
def test_what_is_wrong_is_said_at_the_field_in_which_it_was_entered(people_api, root, outreach, wrong, field):
    outreach(ALLOWED_NETWORKS=[] if "%20" in str(wrong.get("http_url")) else LOOPBACK)

    response = root.post(ADD, form(people_api, **wrong))

    if not field:  # a form strips what stands around a text
        assert response.status_code == 302
        return
    errors = response.context["adminform"].form.errors
    assert set(errors) - {"http_credential"} == {field} - {"http_credential"}
    assert field in errors
    assert not Audience.objects.exists()


def test_the_page_shows_how_far_it_was_read_and_a_button_begins_anew(people_api, root):
    audience = http_audience(people_api, **NEW_ONLY)
    before = root.get(change(audience)).content.decode()
    run = cast.initialized(workflow_for(audience))
    shown = root.get(change(audience)).content.decode()
    reset = f"/admin/campaigns/audience/{audience.pk}/read-from-the-beginning/"

    assert "not read yet: the next run gets everything" in before
    assert "read-from-the-beginning" not in before
    assert f"5, by run {run.pk} on " in shown
    assert "read-from-the-beginning" in shown
    assert "also those who have had a mail" in root.get(reset).content.decode()
    assert bookmark_of(audience) == "5"
    assert root.post(reset, CONFIRMED).status_code == 302
    assert bookmark_of(audience) == ""
    assert "not read yet" in root.get(change(audience)).content.decode()


def test_who_may_only_look_sees_the_settings_and_cannot_begin_anew(people_api):
    audience = http_audience(people_api, **NEW_ONLY)
    cast.initialized(workflow_for(audience))
    user = User.objects.create(username="viewer", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    viewer = Client()
    viewer.force_login(user)

    page = viewer.get(change(audience))

    assert page.status_code == 200
    assert people_api.server.url in page.content.decode()
    assert TOKEN not in page.content.decode()
    refused = viewer.post(f"/admin/campaigns/audience/{audience.pk}/read-from-the-beginning/", CONFIRMED)
    assert refused.status_code == 403
    assert bookmark_of(audience) == "5"


def test_other_kinds_keep_to_their_own_fields(root):
    response = root.post(ADD, {"name": "L", "slug": "l", "kind": "list", "contact_list": cast.contact_list().pk})

    assert response.status_code == 302
    audience = Audience.objects.get()
    assert (audience.options, bool(audience.secrets)) == ({}, False)
