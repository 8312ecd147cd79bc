"""Audiences over REST: set up and changed, refused where their settings cannot work, their credentials never shown."""

import pytest
from rest_framework.test import APIClient

from campaigns.audiences.http_url import ELSEWHERE
from campaigns.models import Audience
from tests.campaigns import cast
from tests.campaigns.test_api_schedules import client
from tests.problems import detail, errors

pytestmark = pytest.mark.django_db(transaction=True)

AUDIENCES = "/api/v1/audiences/"
TOKEN = "s3cr3t-t0ken"
URL = "https://api.example/v1/people"
HTTP = {"name": "CRM", "slug": "crm", "kind": "http"}
READ = {"url": URL, "items": "data", "fields": "email = contact.email\nage = age : optional integer"}
SEALED = HTTP | {"options": READ | {"auth": "bearer"}, "credential": TOKEN}


@pytest.fixture
def operator() -> APIClient:
    return client("ada", "view_audience", "add_audience", "change_audience")


@pytest.fixture
def shop(outreach, tmp_path) -> None:
    outreach(AUDIENCE_DATABASES={"shop": f"sqlite:///{tmp_path / 'shop.sqlite3'}"})


def kept(slug: str = "crm") -> Audience:
    return Audience.objects.get(slug=slug)


def made(operator: APIClient, body: dict[str, object]) -> str:
    """The URL of an audience that was set up."""
    answer = operator.post(AUDIENCES, body, format="json")
    assert answer.status_code == 201, answer.json()
    return f"{AUDIENCES}{answer.json()['id']}/"


# ---- set up and changed ----


def test_each_kind_is_set_up_and_shown_as_it_was_given(operator, shop):
    friends = cast.contact_list()
    bodies = [
        {"name": "Friends", "slug": "all-friends", "kind": "list", "contact_list": "friends"},
        {"name": "Buyers", "slug": "buyers", "kind": "sql", "connection": "shop", "query": "SELECT mail FROM people"},
        {"name": "File", "slug": "file", "kind": "csv", "delimiter": "\t", "encoding": "latin-1"},
        HTTP | {"options": READ},
        {"name": "Waiting", "slug": "waiting", "kind": "list", "contact_list": friends.pk}
        | {"key_field": "id", "depends_field": "after", "deadline_field": "until", "address_field": "mail"},
    ]

    answers = [operator.post(AUDIENCES, body, format="json") for body in bodies]

    assert [answer.status_code for answer in answers] == [201] * 5
    for body, answer in zip(bodies, answers, strict=True):
        shown = answer.json()
        wanted = body | ({"contact_list": friends.pk} if "contact_list" in body else {})
        assert {name: shown[name] for name in wanted} == wanted
        assert operator.get(f"{AUDIENCES}{body['slug']}/").json() == shown
    assert answers[0].json()["contact_list_slug"] == "friends"


def test_a_change_is_of_what_it_names(operator):
    url = made(operator, HTTP | {"options": READ, "key_field": "id"})

    answer = operator.patch(url, {"name": "People", "depends_field": "after"}, format="json")

    shown = answer.json()
    assert answer.status_code == 200
    assert (shown["name"], shown["slug"], shown["options"]) == ("People", "crm", READ)
    assert (shown["key_field"], shown["depends_field"]) == ("id", "after")


def test_options_are_written_as_a_whole_and_without_what_is_empty(operator):
    url = made(operator, HTTP | {"options": READ})

    shown = operator.patch(url, {"options": {"url": URL, "items": "", "page_size": None}}, format="json").json()

    assert shown["options"] == kept().options == {"url": URL}


def test_options_that_are_empty_are_an_empty_object_whatever_the_kind(operator):
    for slug, options in {"object": {}, "list": [], "text": ""}.items():
        made(operator, {"name": slug, "slug": slug, "kind": "csv", "options": options})

    assert list(Audience.objects.values_list("options", flat=True)) == [{}] * 3


def test_a_csv_audience_says_which_file_was_uploaded_and_waits_for_one_until_then(operator):
    made(operator, {"name": "Later", "slug": "later", "kind": "csv"})
    cast.csv_audience("email\na@example.test\n")

    files = {each["slug"]: each["file"] for each in operator.get(AUDIENCES).json()["results"]}

    assert files == {"later": None, "file": "file.csv"}


# ---- refused ----


@pytest.mark.parametrize(
    ("change", "place", "words"),
    [
        ({"depends_field": "after"}, "key_field", "By which field are others named in the dependencies? For"),
        ({"kind": "list"} | {"options": {}}, "contact_list", "Choose the list."),
        ({"kind": "list", "options": {}, "contact_list": "x"}, "contact_list", "There is no contact list 'x': name"),
        ({"kind": "sql", "options": {}, "connection": "cms"}, "connection", "no connection 'cms' (there is: shop)"),
        ({"kind": "sql", "options": {}, "connection": "shop"}, "query", "it is empty"),
        ({"kind": "sql", "options": {}, "connection": "shop", "query": "DROP TABLE a"}, "query", "it is no SELECT"),
        ({"kind": "csv"}, "options", "Only an audience of the kind http has this: leave it empty."),
        ({"kind": "csv", "options": {}, "credential": "x"}, "credential", "Only an audience of the kind http has this"),
        ({"kind": "csv", "options": {}, "delimiter": "--"}, "delimiter", "no more than 1 character"),
        ({"kind": "csv", "options": {}, "file": "a.csv"}, "file", "This is shown and cannot be set."),
        ({"kind": "fax"}, "kind", '"fax" is none of list, csv, sql, http.'),
        ({"name": "Taken"}, "name", "Audience with this Name already exists."),
        ({"secrets": "x"}, "secrets", "There is no such field. There is: name, slug, kind,"),
        ({"credential": TOKEN}, "credential", 'such as "auth": "bearer"'),
        ({"options": READ | {"auth": "bearer"}}, "credential", "Enter the token, key or password"),
        ({"options": READ | {"auth": "bearer"}, "credential": "tök"}, "credential", "that no header can carry"),
        ({"options": None}, "options", "may not be null"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_at_its_place_with_a_good_example(operator, shop, change, place, words):
    made(operator, {"name": "Taken", "slug": "taken", "kind": "csv"})

    answer = operator.post(AUDIENCES, HTTP | {"options": READ} | change, format="json")

    refusal = errors(answer)
    assert (answer.status_code, list(refusal)) == (400, [place])
    assert words in "".join(refusal[place])
    assert Audience.objects.count() == 1


@pytest.mark.parametrize(
    ("options", "setting", "words"),
    [
        ({"url": ""}, "url", "such as https://api.example/v1/people"),
        ({"url": "https://10.0.0.7/"}, "url", "OUTREACH_ALLOWED_NETWORKS"),
        ({"fields": "email contact.email"}, "fields", "Line 1: “email contact.email” is no field: write name = path"),
        ({"fields": "email = e\n\nage = a : int"}, "fields", "Line 3: “int” is no type: choose one of text, integer"),
        ({"fields": "age = a : integer\nemail = e : integer"}, "fields", "must be a text: write email = "),
        ({"fields": "who = a"}, "fields", "email"),
        ({"items": "data..items"}, "items", "such as data.items"),
        ({"paging": "magic"}, "paging", "choose one of none, link_header"),
        ({"page_size": "100"}, "page_size", "must be a whole number between 1 and 100,000, such as 100."),
        ({"since_path": "id"}, "since_parameter", "such as updated_since"),
        ({"urll": "x"}, "urll", "There is no setting 'urll'"),
    ],
)
def test_a_setting_of_a_list_over_http_is_refused_by_its_name_and_changes_nothing(operator, options, setting, words):
    url = made(operator, HTTP | {"options": READ})
    before = Audience.objects.values().get()

    answers = [
        operator.patch(url, {"name": "Changed", "options": READ | options}, format="json"),
        operator.post(AUDIENCES, HTTP | {"name": "Other", "slug": "other", "options": READ | options}, format="json"),
    ]

    for answer in answers:
        refusal = errors(answer)
        place = f"options/{setting}"
        assert (answer.status_code, list(refusal)) == (400, [place])
        assert words in refusal[place][0]
        assert not refusal[place][0].startswith(f"{setting}: ")
    assert Audience.objects.values().get() | {"secrets": None} == before | {"secrets": None}


def test_options_of_another_shape_are_refused(operator):
    answers = [operator.post(AUDIENCES, HTTP | {"options": each}, format="json") for each in ([], ["url"], "url", 7)]

    assert {answer.status_code for answer in answers} == {400}
    assert all("must be an object, such as" in errors(answer)["options/url"][0] for answer in answers)


@pytest.mark.parametrize(
    "sent", ["[]", "7", "null", '"x"', "{", '{"kind": {}, "name": [1]}', '{"options": {"items": "\\ud800"}}']
)
def test_a_body_of_another_shape_is_refused_and_no_server_error(operator, sent):
    url = made(operator, HTTP | {"options": READ})

    assert operator.post(AUDIENCES, sent, content_type="application/json").status_code == 400
    assert operator.patch(url, sent, content_type="application/json").status_code == 400


# ---- credentials ----


def test_a_credential_is_kept_sealed_and_never_shown(operator):
    created = operator.post(AUDIENCES, SEALED, format="json")
    url = f"{AUDIENCES}crm/"
    refused = operator.patch(url, {"credential": f"{TOKEN}-ü"}, format="json")
    answers = [created, operator.get(url), operator.get(AUDIENCES), operator.options(url), refused]

    assert created.json()["has_credential"] is True
    assert refused.status_code == 400
    assert kept().secrets.open() == {"credential": TOKEN}
    assert all(TOKEN not in answer.content.decode() for answer in answers)
    assert "secrets" not in created.json()
    assert "credential" not in created.json()
    assert TOKEN not in kept().secrets.token


@pytest.mark.parametrize("change", [{"name": "People"}, {"credential": ""}, {"credential": "", "options": None}])
def test_a_credential_that_is_not_given_is_kept_while_the_list_stays_where_it_is(operator, change):
    url = made(operator, SEALED)
    if "options" in change:
        change |= {"options": READ | {"auth": "bearer", "url": "https://api.example/v2/people"}}

    answer = operator.patch(url, change, format="json")

    assert (answer.status_code, answer.json()["has_credential"]) == (200, True)
    assert kept().secrets.open() == {"credential": TOKEN}


@pytest.mark.parametrize(
    "elsewhere", ["https://evil.example/v1/people", "https://api.example:8443/", "https://api.example.evil.example/"]
)
def test_a_credential_does_not_go_to_whom_the_url_now_leads_unless_it_is_entered_for_it(operator, elsewhere):
    url = made(operator, SEALED)
    options = READ | {"auth": "bearer", "url": elsewhere}

    refused = operator.patch(url, {"options": options}, format="json")
    stored = kept()
    entered = operator.patch(url, {"options": options, "credential": "another"}, format="json")

    assert (refused.status_code, errors(refused)) == (400, {"credential": [ELSEWHERE]})
    assert (stored.options["url"], stored.secrets.open()) == (URL, {"credential": TOKEN})
    assert entered.status_code == 200
    assert kept().secrets.open() == {"credential": "another"}


@pytest.mark.parametrize("left", [{"options": READ}, {"kind": "csv"}], ids=["no authentication", "another kind"])
def test_a_credential_that_nothing_needs_any_more_is_forgotten_and_does_not_come_back(operator, left):
    url = made(operator, SEALED)

    forgotten = operator.patch(url, left, format="json")
    back = operator.patch(
        url, {"kind": "http", "options": READ | {"auth": "bearer", "url": "https://evil.example/"}}, format="json"
    )

    assert (forgotten.status_code, forgotten.json()["has_credential"]) == (200, False)
    assert kept().secrets.open() == {}
    assert (back.status_code, list(errors(back))) == (400, ["credential"])


def test_a_url_that_is_changed_in_passing_through_another_kind_does_not_get_the_credential_either(operator):
    url = made(operator, SEALED)
    Audience.objects.update(kind="csv")  # as the admin leaves it: with options and credential

    over = operator.patch(url, {"options": READ | {"url": "https://evil.example/"}}, format="json")
    back = operator.patch(
        url, {"kind": "http", "options": READ | {"auth": "bearer", "url": "https://evil.example/"}}, format="json"
    )

    assert (over.status_code, list(errors(over))) == (400, ["options"])
    assert (back.status_code, errors(back)) == (400, {"credential": [ELSEWHERE]})


def test_a_credential_that_no_key_opens_is_said_at_its_place_and_can_be_entered_again(operator, outreach):
    url = made(operator, SEALED)
    Audience.objects.update(secrets="gAAAAA-of-another-key")

    refused = operator.patch(url, {"name": "People"}, format="json")
    entered = operator.patch(url, {"name": "People", "credential": TOKEN}, format="json")

    assert (refused.status_code, list(errors(refused))) == (400, ["credential"])
    assert "enter the credentials again" in errors(refused)["credential"][0]
    assert entered.status_code == 200
    assert kept().secrets.open() == {"credential": TOKEN}


# ---- deleted, and found ----


def test_an_audience_is_deleted_unless_a_workflow_has_it():
    remover = client("remover", "delete_audience")
    cast.csv_audience("email\na@example.test\n")
    cast.workflow()

    gone, needed = remover.delete(f"{AUDIENCES}file/"), remover.delete(f"{AUDIENCES}letters-friends/")

    assert (gone.status_code, needed.status_code) == (204, 409)
    assert detail(needed) == (
        "The audience 'Letters-Friends' cannot be deleted: the workflow 'Letters' needs it, for example."
    )
    assert list(Audience.objects.values_list("slug", flat=True)) == ["letters-friends"]


def test_audiences_are_found_by_kind_list_and_name(operator):
    cast.csv_audience("email\na@example.test\n")
    cast.list_audience()

    found = {
        query: [each["slug"] for each in operator.get(f"{AUDIENCES}?{query}").json()["results"]]
        for query in ("kind=csv", "contact_list=friends", "search=frie", "ordering=-slug")
    }

    assert found == {
        "kind=csv": ["file"],
        "contact_list=friends": ["friends"],
        "search=frie": ["friends"],
        "ordering=-slug": ["friends", "file"],
    }


# ---- who, and how many questions ----


def test_each_deed_needs_its_permission():
    audience = cast.list_audience()
    people = {
        "nobody": APIClient(),
        "outsider": client("outsider"),
        "viewer": client("viewer", "view_audience"),
        "adder": client("adder", "view_audience", "add_audience"),
        "editor": client("editor", "view_audience", "change_audience"),
        "remover": client("remover", "view_audience", "delete_audience"),
    }
    url = f"{AUDIENCES}{audience.pk}/"

    statuses = {
        name: [
            who.get(AUDIENCES).status_code,
            who.get(url).status_code,
            who.post(AUDIENCES, HTTP | {"name": name, "slug": name, "options": READ}, format="json").status_code,
            who.patch(url, {"name": f"of {name}"}, format="json").status_code,
            who.delete(url).status_code,
        ]
        for name, who in people.items()
    }

    assert statuses == {
        "nobody": [401, 401, 401, 401, 401],
        "outsider": [403, 403, 403, 403, 403],
        "viewer": [200, 200, 403, 403, 403],
        "adder": [200, 200, 201, 403, 403],
        "editor": [200, 200, 403, 200, 403],
        "remover": [200, 200, 403, 403, 204],
    }


def test_a_list_of_many_asks_no_more_than_one_of_few(django_assert_num_queries):
    viewer = client("viewer", "view_audience")
    for number in range(3):
        cast.list_audience(slug=f"list-{number}")
        cast.csv_audience("email\na@example.test\n", slug=f"file-{number}")

    # The session, its user, his permissions and those of his groups, the audiences.
    with django_assert_num_queries(5):
        listed = viewer.get(AUDIENCES).json()["results"]

    assert [(each["contact_list_slug"], each["file"]) for each in listed[:2]] == [
        ("list-0", None),
        (None, "file-0.csv"),
    ]
    assert len(listed) == 6


@pytest.mark.parametrize("path", ["999/", "9999999999999999999/", "nothing/"])
def test_what_is_not_there_is_not_found(operator, path):
    assert operator.get(f"{AUDIENCES}{path}").status_code == 404
