"""Contact lists over REST, and their contacts: one for each address, however it is spelt."""

from base64 import b64encode
from urllib.parse import quote

import pytest
from rest_framework.test import APIClient

from campaigns.models import Contact, ContactList
from tests.campaigns import cast
from tests.campaigns.clients import client
from tests.problems import detail, errors

pytestmark = pytest.mark.django_db(transaction=True)

LISTS = "/api/v1/contact-lists/"
CONTACTS = f"{LISTS}friends/contacts/"
DEEDS = ("view", "add", "change", "delete")
ADA = {"address": "ada@example.test", "name": "Ada Lovelace", "attributes": {"city": "London"}}


@pytest.fixture
def operator() -> APIClient:
    return client("ada", *(f"{deed}_{what}" for deed in DEEDS for what in ("contactlist", "contact")))


@pytest.fixture
def friends() -> ContactList:
    return ContactList.objects.create(name="Friends", slug="friends")


def test_a_list_is_made_changed_and_deleted_with_its_contacts(operator):
    made = operator.post(LISTS, {"name": "Friends", "slug": "friends"}, format="json")
    operator.post(CONTACTS, ADA, format="json")

    changed = operator.patch(f"{LISTS}friends/", {"name": "Good friends"}, format="json")
    gone = operator.delete(f"{LISTS}{made.json()['id']}/")

    assert [answer.status_code for answer in (made, changed, gone)] == [201, 200, 204]
    assert changed.json() == made.json() | {"name": "Good friends"}
    assert not ContactList.objects.exists()
    assert not Contact.objects.exists()


def test_a_list_that_an_audience_reads_is_not_deleted(operator):
    cast.list_audience()

    answer = operator.delete(f"{LISTS}friends/")

    assert (answer.status_code, detail(answer)) == (
        409,
        "The contact list 'Friends' cannot be deleted: the audience 'Friends' needs it, for example.",
    )
    assert Contact.objects.count() == 3


def test_a_name_that_is_taken_is_refused_at_its_field(operator, friends):
    answer = operator.post(LISTS, {"name": "Friends", "slug": "other"}, format="json")

    assert errors(answer) == {"name": ["Contact list with this Name already exists."]}


# ---- contacts ----


def test_a_contact_is_made_read_changed_and_deleted(operator, friends):
    made = operator.post(CONTACTS, ADA, format="json")
    url = f"{CONTACTS}{made.json()['id']}/"

    read = operator.get(url)
    changed = operator.patch(url, {"attributes": {"age": 36}}, format="json")
    gone = operator.delete(url)

    assert [answer.status_code for answer in (made, read, changed, gone)] == [201, 200, 200, 204]
    assert {name: read.json()[name] for name in ADA} == ADA
    assert changed.json() == read.json() | {"attributes": {"age": 36}}
    assert operator.get(url).status_code == 404


def test_an_address_is_kept_in_its_normal_form(operator, friends):
    answer = operator.post(CONTACTS, {"address": " Bjørn@Bücher.example "}, format="json")

    kept = Contact.objects.get()
    assert answer.json()["address"] == kept.address == "Bjørn@xn--bcher-kva.example"
    assert kept.identity == "bjørn@xn--bcher-kva.example"


@pytest.mark.parametrize("again", ["ada@example.test", "ADA@Example.TEST", " ada@EXAMPLE.test"])
def test_another_spelling_of_an_address_is_the_same_contact(operator, friends, again):
    operator.post(CONTACTS, ADA, format="json")
    other = operator.post(CONTACTS, {"address": "grace@example.test"}, format="json").json()

    answers = [
        operator.post(CONTACTS, {"address": again}, format="json"),
        operator.patch(f"{CONTACTS}{other['id']}/", {"address": again}, format="json"),
    ]

    for answer in answers:
        assert (answer.status_code, list(errors(answer))) == (400, ["address"])
        assert "is on the list already" in detail(answer)
    assert Contact.objects.count() == 2


def test_the_same_address_may_be_on_two_lists(operator, friends):
    ContactList.objects.create(name="Others", slug="others")

    answers = [operator.post(f"{LISTS}{slug}/contacts/", ADA, format="json") for slug in ("friends", "others")]

    assert [answer.status_code for answer in answers] == [201, 201]


def test_a_contact_is_found_on_its_own_list_alone(operator, friends):
    made = operator.post(CONTACTS, ADA, format="json").json()
    ContactList.objects.create(name="Others", slug="others")
    elsewhere = f"{LISTS}others/contacts/{made['id']}/"

    statuses = [
        operator.get(elsewhere).status_code,
        operator.patch(elsewhere, {"name": "x"}, format="json").status_code,
        operator.delete(elsewhere).status_code,
    ]

    assert statuses == [404, 404, 404]
    assert operator.get(f"{LISTS}others/contacts/").json()["results"] == []
    assert operator.get(f"{LISTS}nowhere/contacts/").status_code == 404
    assert operator.post(f"{LISTS}nowhere/contacts/", ADA, format="json").status_code == 404


@pytest.mark.parametrize(
    ("change", "place", "words"),
    [
        ({"address": "nobody"}, "address", "There is no @ in it."),
        ({"address": "Ada <ada@example.test>"}, "address", "angle brackets"),
        ({"address": ""}, "address", "may not be blank"),
        ({"address": "a" * 2000 + "@example.test"}, "address", "no more than 1016 characters"),
        ({"attributes": ["London"]}, "attributes", "dictionary"),
        ({"attributes": {"a": "x" * 70_000}}, "attributes", "more than 64,000 characters"),
        ({"name": "x" * 201}, "name", "no more than 200 characters"),
        ({"identity": "x"}, "identity", "There is no such field. There is: address, name, attributes."),
        ({"id": 7}, "id", "This is shown and cannot be set."),
    ],
)
def test_what_is_wrong_with_a_contact_is_refused_at_its_place(operator, friends, change, place, words):
    kept = operator.post(CONTACTS, ADA | {"address": "first@example.test"}, format="json").json()

    answers = [
        operator.post(CONTACTS, ADA | change, format="json"),
        operator.patch(f"{CONTACTS}{kept['id']}/", change, format="json"),
    ]

    for answer in answers:
        assert (answer.status_code, list(errors(answer))) == (400, [place])
        assert words in errors(answer)[place][0]
    assert operator.get(f"{CONTACTS}{kept['id']}/").json() == kept


def test_contacts_come_in_the_order_of_their_addresses_page_by_page(operator):
    cast.contact_list(reversed(cast.crowd(5)))

    first = operator.get(f"{CONTACTS}?page_size=2").json()
    second = operator.get(first["next"]).json()
    third = operator.get(second["next"]).json()

    found = [each["name"] for page in (first, second, third) for each in page["results"]]
    assert found == [f"Person {number}" for number in range(1, 6)]
    assert third["next"] is None
    assert operator.get(third["previous"]).json()["results"] == second["results"]


def cursor(position: str, more: str = "") -> str:
    return b64encode(f"p={quote(position)}{more}".encode()).decode()


@pytest.mark.parametrize(
    "position", ["\0", "a\0b", "x" * 5000, "9" * 40, "-1", "NaN", "é", "0001-01-01T00:00:00+14:00", "0001-01-01", ""]
)
@pytest.mark.parametrize("ordering", [None, "-created_at", "id", "name"])
def test_a_cursor_that_somebody_made_up_is_a_place_in_the_list_or_not_found(operator, friends, ordering, position):
    operator.post(CONTACTS, ADA, format="json")

    for more in ("", "&r=1", "&o=1"):
        query = {"cursor": cursor(position, more)}
        answer = operator.get(LISTS, query | {"ordering": ordering}) if ordering else operator.get(CONTACTS, query)

        assert answer.status_code in (200, 404), answer.content


@pytest.mark.parametrize("made_up", ["x", "cD0", "cD0x&o=x", "é", "", "bz05OTk5OTk5OTk5OTk5OTk5OTk5"])
def test_what_is_no_cursor_is_a_place_in_the_list_or_not_found(operator, friends, made_up):
    assert operator.get(CONTACTS, {"cursor": made_up}).status_code in (200, 404)


@pytest.mark.parametrize("written", ["GRACE@example.test", " grace@Example.Test ", "bjørn@bücher.example"])
def test_a_contact_is_found_by_its_address_however_it_is_spelt(operator, written):
    cast.contact_list()

    found = operator.get(CONTACTS, {"address": written}).json()["results"]

    assert [each["name"] for each in found] == ["Bjørn Ås" if "bj" in written else "Grace Hopper"]


def test_a_list_of_many_contacts_asks_no_more_than_one_of_few(operator, django_assert_num_queries):
    cast.contact_list(cast.crowd(120))

    # The session, its user, his permissions and those of his groups, the list (by slug), its contacts.
    with django_assert_num_queries(6):
        found = operator.get(f"{CONTACTS}?page_size=100").json()["results"]

    assert len(found) == 100


def test_two_who_add_an_address_at_once_are_one_who_adds_it_and_one_who_is_told(friends):
    people = [client(name, "add_contact") for name in ("ada", "grace")]

    answers = cast.side_by_side(2, lambda number: people[number].post(CONTACTS, ADA, format="json"))

    refused = max(answers, key=lambda answer: answer.status_code)
    assert sorted(answer.status_code for answer in answers) == [201, 400]
    assert list(errors(refused)) == ["address"]


def test_each_deed_needs_its_permission(friends):
    people = {
        "nobody": APIClient(),
        "outsider": client("outsider", "view_contactlist"),
        "viewer": client("viewer", "view_contact"),
        "adder": client("adder", "add_contact"),
        "editor": client("editor", "change_contact"),
        "remover": client("remover", "delete_contact"),
    }

    def tried(who: APIClient, name: str) -> list[int]:
        kept = Contact.objects.create(contact_list=friends, address=f"{name}@a.test", identity=f"{name}@a.test")
        return [
            who.get(CONTACTS).status_code,
            who.post(CONTACTS, {"address": f"{name}@b.test"}, format="json").status_code,
            who.patch(f"{CONTACTS}{kept.pk}/", {"name": "x"}, format="json").status_code,
            who.delete(f"{CONTACTS}{kept.pk}/").status_code,
        ]

    assert {name: tried(who, name) for name, who in people.items()} == {
        "nobody": [401, 401, 401, 401],
        "outsider": [403, 403, 403, 403],
        "viewer": [200, 403, 403, 403],
        "adder": [403, 201, 403, 403],
        "editor": [403, 403, 200, 403],
        "remover": [403, 403, 403, 204],
    }
