"""Templates over REST: written, changed by new versions, tried out; refused by line where they are wrong."""

import pytest
from rest_framework.test import APIClient

from campaigns.models import Template, TemplateVersion
from tests.campaigns import cast
from tests.campaigns.clients import client
from tests.problems import detail, errors

pytestmark = pytest.mark.django_db(transaction=True)

TEMPLATES = "/api/v1/templates/"
WELCOME = {"name": "Welcome", "slug": "welcome", "subject": "Hello {{ name }}", "text": "Dear {{ name }},\n"}


@pytest.fixture
def author() -> APIClient:
    return client("ada", "view_template", "add_template", "change_template")


def wordings() -> list[tuple[int, str, str, str]]:
    return list(TemplateVersion.objects.order_by("number").values_list("number", "subject", "text", "html"))


def test_a_template_is_written_and_shown_as_it_was_given(author):
    answer = author.post(TEMPLATES, WELCOME, format="json")

    shown = answer.json()
    assert answer.status_code == 201
    assert {name: shown[name] for name in (*WELCOME, "version", "html")} == WELCOME | {"version": 1, "html": ""}
    assert author.get(f"{TEMPLATES}welcome/").json() == author.get(f"{TEMPLATES}{shown['id']}/").json() == shown
    (listed,) = author.get(TEMPLATES).json()["results"]
    assert listed == {name: shown[name] for name in ("id", "name", "slug", "version", "subject", "created_at")}
    assert TemplateVersion.objects.get().created_by.username == "ada"


def test_new_words_make_a_new_version_and_those_that_are_not_given_stay(author):
    author.post(TEMPLATES, WELCOME, format="json")

    answers = [
        author.patch(f"{TEMPLATES}welcome/", change, format="json")
        for change in ({"subject": "Hi {{ name }}"}, {"subject": "Hi {{ name }}"}, {"name": "A welcome"})
    ]

    assert [answer.status_code for answer in answers] == [200] * 3
    assert [answer.json()["version"] for answer in answers] == [2, 2, 2]
    assert answers[-1].json()["name"] == "A welcome"
    assert wordings() == [
        (1, "Hello {{ name }}", "Dear {{ name }},\n", ""),
        (2, "Hi {{ name }}", "Dear {{ name }},\n", ""),
    ]


def test_a_text_that_is_made_from_the_html_is_made_anew_with_it(author):
    author.post(TEMPLATES, WELCOME | {"text": "", "html": "<p>Dear {{ name }}</p>"}, format="json")

    answer = author.patch(f"{TEMPLATES}welcome/", {"html": "<p>Hello {{ name }}</p>"}, format="json")

    assert answer.json()["text"] == ""
    assert [(number, text.strip()) for number, _, text, _ in wordings()] == [
        (1, "Dear {{ name }}"),
        (2, "Hello {{ name }}"),
    ]


def test_a_line_end_of_another_system_makes_no_version(author):
    author.post(TEMPLATES, WELCOME, format="json")

    author.patch(f"{TEMPLATES}welcome/", {"text": "Dear {{ name }},\r\n"}, format="json")

    assert TemplateVersion.objects.count() == 1


def test_versions_are_listed_without_their_words_and_read_one_by_one(author):
    version = cast.template("news", text="one")
    author.patch(f"{TEMPLATES}news/", {"text": "two"}, format="json")

    listed = author.get(f"{TEMPLATES}news/versions/").json()["results"]
    read = author.get(f"{TEMPLATES}news/versions/1/").json()

    assert [(each["number"], each["created_by"], "text" in each) for each in listed] == [
        (2, "ada", False),
        (1, None, False),
    ]
    assert (read["number"], read["subject"], read["text"]) == (1, version.subject, "one")
    assert author.get(f"{TEMPLATES}news/versions/3/").status_code == 404


def test_versions_come_in_pages(author):
    cast.template("news", text="1")
    for number in range(2, 6):
        author.patch(f"{TEMPLATES}news/", {"text": str(number)}, format="json")

    first = author.get(f"{TEMPLATES}news/versions/?page_size=2").json()
    second = author.get(first["next"]).json()

    assert [each["number"] for each in first["results"] + second["results"]] == [5, 4, 3, 2]


@pytest.mark.parametrize(
    ("change", "place", "words"),
    [
        ({"text": "{{ name"}, "text", "The text does not compile, line 1"),
        ({"html": "<p>\n{% if name %}"}, "html", "line 2"),
        ({"subject": "{{ name|shout }}"}, "subject", "there is no filter `shout`"),
        ({"text": " "}, "text", "The mail would be empty"),
        ({"subject": ""}, "subject", "may not be blank"),
        ({"subject": None}, "subject", "may not be null"),
        ({"name": "Taken"}, "name", "Template with this Name already exists."),
        ({"slug": "two words"}, "slug", "Enter a valid"),
        ({"sbject": "x"}, "sbject", "There is no such field. There is: name, slug, subject, text, html."),
        ({"version": 7}, "version", "This is shown and cannot be set."),
        ({"text": "x" * 500_001}, "text", "no more than 500000 characters"),
    ],
)
def test_what_is_wrong_is_refused_at_its_place_and_nothing_is_kept(author, change, place, words):
    cast.template("taken")

    answers = [
        author.post(TEMPLATES, WELCOME | change, format="json"),
        author.patch(f"{TEMPLATES}taken/", {"name": "Other"} | change, format="json"),
    ]

    for answer in answers if "name" not in change else answers[:1]:
        refusal = errors(answer)
        assert (answer.status_code, list(refusal)) == (400, [place])
        assert words in refusal[place][0]
        assert (Template.objects.get().name, TemplateVersion.objects.count()) == ("Taken", 1)


def test_a_subject_has_to_be_there_from_the_beginning(author):
    refusal = errors(author.post(TEMPLATES, {"name": "A", "slug": "a", "text": "x"}, format="json"))

    assert refusal == {"subject": ["This field is required."]}


# ---- tried out ----


def preview(author: APIClient, **body: object):
    return author.post(f"{TEMPLATES}news/preview/", body, format="json")


def test_a_preview_is_the_mail_that_somebody_with_this_data_gets(author):
    cast.template("news", html="<p>{{ city }} <a href='{{ unsubscribe_url }}'>stop</a></p>")
    author.patch(f"{TEMPLATES}news/", {"subject": "Second for {{ name }}"}, format="json")
    ada = {"name": "Ada", "city": "<London>"}

    latest, first = preview(author, data=ada), preview(author, data=ada, version=1)

    assert (latest.status_code, latest.json()["subject"], first.json()["subject"]) == (
        200,
        "Second for Ada",
        "News for Ada",
    )
    assert latest.json()["text"] == "Hello Ada,\nhow is <London>?\n"
    assert "<p>&lt;London&gt; <a href='https://" in latest.json()["html"]


def test_words_are_tried_out_before_they_are_kept(author):
    cast.template("news")

    answer = preview(author, data={"name": "Ada"}, text="", html="<p>Only {{ name }}</p>")

    assert {part: words.strip() for part, words in answer.json().items()} == {
        "subject": "News for Ada",
        "text": "Only Ada",
        "html": "<p>Only Ada</p>",
    }
    assert TemplateVersion.objects.count() == 1


@pytest.mark.parametrize(
    ("body", "place", "words"),
    [
        ({"data": {"name": "Ada"}}, "data", "line 2"),
        ({"data": {"name": "Ada"}, "text": "a\nb {{ citty }}"}, "text", "line 2"),
        ({"text": "{% if %}"}, "text", "does not compile, line 1"),
        ({"data": []}, "data", "dictionary"),
        ({"version": 0}, "version", "greater than or equal to 1"),
        ({"dta": {}}, "dta", "There is no such field. There is: data, version, subject, text, html."),
    ],
)
def test_what_a_preview_lacks_is_said_with_its_line(author, body, place, words):
    cast.template("news")

    answer = preview(author, **body)

    refusal = errors(answer)
    assert (answer.status_code, list(refusal)) == (400, [place])
    assert words in refusal[place][0]


def test_a_preview_of_a_version_that_is_not_there_is_not_found(author):
    cast.template("news")

    answer = preview(author, version=9)

    assert (answer.status_code, detail(answer)) == (404, "The template 'News' has no version 9.")


def test_a_template_that_would_never_end_is_stopped(author):
    cast.template("news")

    answer = preview(
        author,
        data={"name": "Ada"},
        text="{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}",
    )

    assert (answer.status_code, list(errors(answer))) == (400, ["text"])


# ---- lists, and who ----


def test_lists_are_searched_ordered_and_asked_for_in_one_question(author, django_assert_num_queries):
    for slug in ("beta", "alpha", "gamma"):
        cast.template(slug)

    # The session, its user, his permissions and those of his groups, the templates.
    with django_assert_num_queries(5):
        found = author.get(f"{TEMPLATES}?search=a&ordering=-name").json()["results"]

    assert [each["slug"] for each in found] == ["gamma", "beta", "alpha"]
    assert [each["slug"] for each in author.get(f"{TEMPLATES}?search=alp").json()["results"]] == ["alpha"]
    assert list(errors(author.get(f"{TEMPLATES}?serach=alp"))) == ["serach"]
    assert list(errors(author.get(f"{TEMPLATES}?ordering=text"))) == ["ordering"]


def test_each_deed_needs_its_permission_and_none_deletes():
    cast.template("news")
    people = {
        "nobody": APIClient(),
        "outsider": client("outsider"),
        "viewer": client("viewer", "view_template"),
        "adder": client("adder", "view_template", "add_template"),
        "editor": client("editor", "view_template", "change_template", "delete_template"),
    }

    statuses = {
        name: [
            who.get(TEMPLATES).status_code,
            who.get(f"{TEMPLATES}news/versions/").status_code,
            who.post(TEMPLATES, WELCOME | {"name": name, "slug": name}, format="json").status_code,
            who.patch(f"{TEMPLATES}news/", {"subject": f"of {name}"}, format="json").status_code,
            who.post(f"{TEMPLATES}news/preview/", {"subject": "x", "text": "x"}, format="json").status_code,
            who.delete(f"{TEMPLATES}news/").status_code,
        ]
        for name, who in people.items()
    }

    assert statuses == {
        "nobody": [401] * 6,
        "outsider": [403] * 6,
        "viewer": [200, 200, 403, 403, 200, 403],
        "adder": [200, 200, 201, 403, 200, 403],
        "editor": [200, 200, 403, 200, 200, 405],
    }
