"""Imports of contacts: what a file makes of a list, what it never touches, and how it is taken back."""

import random

import pytest

from campaigns.audiences.exceptions import AudienceRefused
from campaigns.contacts import rows, states, uploads, work
from campaigns.contacts.mapping import Mapping
from campaigns.exceptions import ImportImpossible
from campaigns.models import (
    Contact,
    ContactChange,
    ContactImport,
    ContactList,
    ImportChunk,
    ImportPolicy,
    ImportProblem,
    ImportState,
)
from delivery.models import Suppression, SuppressionReason
from delivery.suppression import suppress
from tests.campaigns.cast import contact_list
from tests.campaigns.importing import BY, checked, csv_of, finished, imported, people, undone, uploaded

FILE = """Email,Full name,City,Plan
ada@example.test,Ada,Paris,gold
Grace@Example.TEST,Grace,,silver
linus@example.test,Linus,Helsinki,gold
not an address,Nobody,Nowhere,none
ADA@example.test,Ada again,Rome,iron
"""
MAPPING = Mapping("Email", "Full name", {"City": "city", "Plan": "plan"})
ADA = {"ada@example.test": ("Ada Lovelace", {"city": "London"})}


@pytest.fixture
def friends(db) -> ContactList:
    return contact_list([("ada@example.test", "Ada Lovelace", {"city": "London"}), ("Grace@example.test", "", {})])


def test_a_check_tells_everything_and_changes_nothing(friends):
    before = people(friends)

    of = checked(friends, FILE, mapping=MAPPING)

    assert of.state == ImportState.CHECKED
    assert of.forecast == {
        "rows": 5, "new": 1, "changed": 2, "unchanged": 0, "bad": 2, "suppressed": 0, "suppressed_in_part": 0,
    }  # fmt: skip
    assert of.problem_counts == {"impossible_address": 1, "duplicate": 1}
    assert list(of.problems.values_list("row", "reason", "raw")) == [
        (5, "impossible_address", "not an address,Nobody,Nowhere,none"),
        (6, "duplicate", "ADA@example.test"),
    ]
    assert people(friends) == before
    assert not ContactChange.objects.exists()


@pytest.mark.parametrize("policy", ImportPolicy.values)
def test_an_import_does_what_its_check_has_said(friends, policy):
    of = imported(friends, FILE, mapping=MAPPING, policy=policy)

    assert of.state == ImportState.DONE
    assert of.counts == of.forecast


def test_who_is_there_stays_as_he_is_when_the_policy_is_to_keep(friends):
    imported(friends, FILE, mapping=MAPPING, policy=ImportPolicy.KEEP)

    assert people(friends) == {
        "Grace@example.test": ("", {}),
        "ada@example.test": ("Ada Lovelace", {"city": "London"}),
        "linus@example.test": ("Linus", {"city": "Helsinki", "plan": "gold"}),
    }


def test_who_is_there_gets_what_he_lacks_when_the_policy_is_to_fill_in(friends):
    imported(friends, FILE, mapping=MAPPING, policy=ImportPolicy.FILL)

    assert people(friends) == {
        "Grace@example.test": ("Grace", {"city": "", "plan": "silver"}),
        "ada@example.test": ("Ada Lovelace", {"city": "London", "plan": "gold"}),
        "linus@example.test": ("Linus", {"city": "Helsinki", "plan": "gold"}),
    }


def test_who_is_there_gets_what_the_file_says_when_the_policy_is_to_overwrite(friends):
    Contact.objects.filter(address="Grace@example.test").update(attributes={"city": "New York", "kept": 1})

    imported(friends, FILE, mapping=MAPPING, policy=ImportPolicy.OVERWRITE)

    assert people(friends) == {
        "Grace@example.test": ("Grace", {"city": "New York", "plan": "silver", "kept": 1}),  # the cell is empty
        "ada@example.test": ("Ada", {"city": "Paris", "plan": "gold"}),
        "linus@example.test": ("Linus", {"city": "Helsinki", "plan": "gold"}),
    }


def test_columns_that_are_not_named_are_ignored(friends):
    imported(friends, FILE, mapping=Mapping("Email"))

    assert people(friends)["linus@example.test"] == ("", {})


def test_nobody_is_resubscribed(friends):
    suppress("linus@example.test", SuppressionReason.UNSUBSCRIBE)
    suppress("ada@example.test", SuppressionReason.COMPLAINT, scope="letters")
    before = list(Suppression.objects.order_by("pk").values())

    of = imported(friends, FILE, mapping=MAPPING, policy=ImportPolicy.OVERWRITE)

    assert (of.forecast["suppressed"], of.forecast["suppressed_in_part"]) == (1, 1)
    assert (of.counts["suppressed"], of.counts["suppressed_in_part"]) == (1, 1)
    assert "linus@example.test" in people(friends)
    assert list(Suppression.objects.order_by("pk").values()) == before
    undone(of)
    assert list(Suppression.objects.order_by("pk").values()) == before


# ---- undoing ----


@pytest.mark.parametrize("policy", ImportPolicy.values)
def test_undoing_gives_everybody_back_what_he_had(friends, policy):
    before = people(friends)

    of = undone(imported(friends, FILE, mapping=MAPPING, policy=policy))

    changed = of.counts["changed"]
    assert of.state == ImportState.UNDONE
    assert people(friends) == before
    assert of.undone == {"deleted": 1, "restored": changed, "kept": 0, "gone": 0}
    assert not ContactChange.objects.exists()


def test_what_was_changed_since_is_kept_and_told(friends):
    of = imported(friends, FILE, mapping=MAPPING, policy=ImportPolicy.OVERWRITE)
    Contact.objects.filter(address="ada@example.test").update(name="Countess")
    Contact.objects.filter(address="linus@example.test").update(attributes={"city": "Portland"})
    Contact.objects.filter(address="Grace@example.test").delete()

    of = undone(of)

    assert of.undone == {"deleted": 0, "restored": 0, "kept": 2, "gone": 1}
    assert people(friends) == {
        "ada@example.test": ("Countess", {"city": "Paris", "plan": "gold"}),
        "linus@example.test": ("Linus", {"city": "Portland"}),
    }
    told = ImportProblem.objects.filter(reason="changed_since").order_by("row")
    assert list(told.values_list("row", "raw")) == [(2, "ada@example.test"), (4, "linus@example.test")]


def test_of_two_imports_the_later_one_is_undone_first(friends):
    first = imported(friends, "email,city\nnew@example.test,Rome\n")
    second = imported(friends, "email,city\nnew@example.test,Oslo\n", policy=ImportPolicy.OVERWRITE)

    assert undone(second).undone["restored"] == 1
    assert people(friends)["new@example.test"] == ("", {"city": "Rome"})
    assert undone(first).undone["deleted"] == 1
    assert "new@example.test" not in people(friends)


def test_an_import_that_is_undone_half_way_stops_and_leaves_nothing(friends, monkeypatch):
    monkeypatch.setattr(rows, "AT_ONCE", 10)
    before = people(friends)
    of = checked(friends, crowd(100))
    states.start(of, BY)

    def change_of_mind() -> None:
        other = ContactImport.objects.get(pk=of.pk)
        if other.state == ImportState.IMPORTING and other.position >= 50:
            states.undo(other, BY)

    assert not work.work_on(of.pk, between=change_of_mind)
    assert len(people(friends)) == len(before) + 50

    work.work_on(of.pk)
    of.refresh_from_db()
    assert (of.state, people(friends)) == (ImportState.UNDONE, before)


# ---- killed and taken over ----


class Killed(BaseException):
    """The process is gone: nothing of it runs any more."""


def crowd(count: int) -> str:
    return csv_of([("email", "city"), *((f"p{n}@example.test", f"City {n % 7}") for n in range(count))])


def dies_after(chunks: int):
    left = [chunks]

    def between() -> None:
        left[0] -= 1
        if left[0] <= 0:
            raise Killed

    return between


def let_claim_end(of: ContactImport) -> None:
    ContactImport.objects.filter(pk=of.pk).update(holder_until=of.created_at)


def work_with_deaths(of: ContactImport, rng: random.Random) -> int:
    """Brings it to its end by processes that die sooner or later. How many there were. One that takes over an import
    reads over what is done, chunk by chunk, before it comes to its own: the later ones live longer."""
    for count in range(1, 100):
        try:
            if work.work_on(of.pk, between=dies_after(rng.randint(count, 2 * count))):
                return count
        except Killed:
            let_claim_end(of)
    raise AssertionError("it never ends")


def test_whoever_takes_over_an_import_or_its_undoing_doubles_and_loses_nobody(friends, monkeypatch, rng):
    monkeypatch.setattr(rows, "AT_ONCE", 10)
    monkeypatch.setattr(work, "UNDONE_AT_ONCE", 10)
    before = people(friends)
    content = crowd(95) + "ada@example.test,Nowhere\np1@example.test,again\nbad,row\n"
    of = checked(friends, content)
    forecast = of.forecast
    states.start(of, BY)

    assert work_with_deaths(of, rng) > 2

    of.refresh_from_db()
    assert (of.state, of.counts) == (ImportState.DONE, forecast)
    assert forecast["new"] == 95
    assert len(people(friends)) == 97
    assert of.changes.count() == of.counts["new"] + of.counts["changed"]

    states.undo(of, BY)
    assert work_with_deaths(of, rng) > 2
    of.refresh_from_db()
    assert (of.state, people(friends)) == (ImportState.UNDONE, before)
    assert of.undone["deleted"] == 95


def test_a_check_that_is_taken_over_counts_every_row_once(friends, monkeypatch):
    monkeypatch.setattr(rows, "AT_ONCE", 2)
    of = uploaded(friends, FILE)
    states.check(of, BY, MAPPING, ImportPolicy.FILL)
    with pytest.raises(Killed):
        work.work_on(of.pk, between=dies_after(3))
    let_claim_end(of)

    work.work_on(of.pk)

    of.refresh_from_db()
    assert (of.forecast["rows"], of.forecast["bad"], of.problems.count()) == (5, 2, 2)


def test_nobody_works_on_what_another_one_works_on(friends):
    of = checked(friends, FILE)
    states.start(of, BY)
    assert states.claim(of.pk) is not None

    assert not work.work_on(of.pk)


def test_a_process_that_stops_in_order_leaves_the_rest_to_the_next_one_at_once(friends, monkeypatch):
    monkeypatch.setattr(rows, "AT_ONCE", 10)
    of = checked(friends, crowd(30))
    states.start(of, BY)

    def stop() -> None:
        raise work.Stopping

    with pytest.raises(work.Stopping):
        work.work_on(of.pk, between=stop)

    assert work.work_on(of.pk)
    assert len(people(friends)) == 32


# ---- what is refused ----


def test_nothing_is_imported_that_was_not_checked(friends):
    of = uploaded(friends, FILE)

    with pytest.raises(ImportImpossible, match=r"is uploaded: this is possible when it is checked\. Check it first\."):
        states.start(of, BY)


def test_a_file_is_imported_once_and_undone_once(friends):
    of = imported(friends, FILE)
    with pytest.raises(ImportImpossible, match="It can be undone"):
        states.start(of, BY)

    undone(of)

    for again in (states.start, states.undo):
        with pytest.raises(ImportImpossible, match="is undone"):
            again(of, BY)


def test_a_file_that_ends_within_a_quote_is_refused_as_a_whole(friends):
    of = checked(
        friends, "email,city\nada@example.test,Rome\n" * 3 + 'grace@example.test,"Oslo\n' + "x@example.test,y\n"
    )

    assert of.state == ImportState.REFUSED
    assert "line 7: a quoted field starts here and never ends" in of.error
    with pytest.raises(ImportImpossible, match="mend it and upload it again"):
        states.start(of, BY)


def test_a_file_with_too_many_rows_is_refused_in_words(friends, monkeypatch):
    monkeypatch.setattr(rows, "MOST_ROWS", 3)

    of = checked(friends, crowd(4))

    assert (of.state, of.error) == (
        ImportState.REFUSED,
        "people.csv: it has more than 3 rows. Part it, each part with the line that names the columns.",
    )


def test_a_file_with_too_many_columns_is_not_kept(friends):
    header = ",".join(f"c{n}" for n in range(201))

    with pytest.raises(AudienceRefused, match="it has 201 columns; at most 200 are read"):
        uploaded(friends, f"{header}\n")

    assert not ContactImport.objects.exists()
    assert not ImportChunk.objects.exists()


def test_a_file_that_is_too_large_is_not_kept(friends, outreach):
    outreach(IMPORT_MEGABYTES=1)

    with pytest.raises(uploads.FileTooLarge, match="at most 1 MB \\(OUTREACH_IMPORT_MEGABYTES\\)"):
        uploaded(friends, b"email\n" + b"x" * 1024**2)

    assert not ContactImport.objects.exists()


def test_an_address_with_the_apostrophe_of_an_export_is_a_bad_row(friends):
    of = checked(friends, "email\n'+tag@example.test\no'neill@example.test\n")

    assert of.problem_counts == {"impossible_address": 1}
    assert of.forecast["new"] == 1
    assert "looks like that of an export" in of.problems.get().detail


def test_the_file_is_forgotten_once_it_is_imported(friends):
    of = imported(friends, FILE)

    assert not of.chunks.exists()


def test_a_name_that_is_too_long_is_a_bad_row(friends):
    of = checked(friends, f"email,name\nx@example.test,{'n' * 201}\n")

    assert of.problem_counts == {"wrong_value": 1}


def test_an_import_of_many_chunks_costs_the_same_few_statements_for_each(friends, django_assert_max_num_queries):
    of = checked(friends, crowd(3000))
    states.start(of, BY)

    with django_assert_max_num_queries(60):
        work.work_on(of.pk)


def test_finished_is_what_was_checked(friends):
    of = checked(friends, FILE, mapping=Mapping("Email", "", {"Plan": "tier"}))

    finished(of)

    assert people(friends)["linus@example.test"] == ("", {"tier": "gold"})
