"""One chunk of contacts against a list: what would change, or what is changed. A few statements, whatever its size."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from django.db import transaction

from campaigns.contacts.merging import Said, digest, merged, written
from campaigns.contacts.rows import NewContact
from campaigns.contacts.staging import as_json, run, staged
from campaigns.models import Contact, ContactChange, ContactImport
from delivery.queue.dialect import database_now, instant, is_postgres, table
from delivery.suppression import suppressed_among


class There(NamedTuple):
    """A contact as it is in the database."""

    pk: int
    address: str
    said: Said


def forecast(of: ContactImport, contacts: Sequence[NewContact]) -> Counter[str]:
    """How many would be new, changed, unchanged, and how many of all of them get no mail. Writes nothing."""
    with transaction.atomic():
        there = _there(of, contacts)
    counts = _suppressed(contacts)
    for contact in contacts:
        known = there.get(contact.identity)
        if known is None:
            counts["new"] += 1
        else:
            counts["unchanged" if merged(known.said, contact.said, of.policy) == known.said else "changed"] += 1
    return counts


def write(of: ContactImport, contacts: Sequence[NewContact]) -> Counter[str]:
    """Writes them, with what is needed to undo it. Part of the caller's transaction, which holds the import."""
    # In one order: two imports into one list wait for each other, and never in a circle.
    contacts = sorted(contacts, key=lambda contact: contact.identity)
    counts = _suppressed(contacts)
    while contacts:
        there = _there(of, contacts, lock=True)
        counts.update(_change(of, [(there[each.identity], each) for each in contacts if each.identity in there]))
        new = [contact for contact in contacts if contact.identity not in there]
        made = _insert(of, new)
        counts["new"] += len(made)
        # Whom somebody else has put on the list in this moment is there now.
        contacts = [contact for contact in new if contact.identity not in made] if len(made) < len(new) else []
    return counts


def _change(of: ContactImport, pairs: Sequence[tuple[There, NewContact]]) -> Counter[str]:
    """What the file says of those that are on the list."""
    changes = []
    for there, contact in pairs:
        said = merged(there.said, contact.said, of.policy)
        if said != there.said:
            before = json.dumps({"name": there.said.name, "attributes": there.said.attributes})
            now = written(said)
            changes.append((there.pk, contact.row, said.name, now, before, digest(there.address, said.name, now)))
    if changes:
        columns = {"contact": int, "row": int, "name": str, "attributes": str, "before": str, "after": str}
        source, parameters = staged("contact_changes", columns, changes)
        _update(source, parameters)
        run(
            f"INSERT INTO {table(ContactChange)} (contact_import_id, contact_id, row, before, after) "  # noqa: S608
            f"SELECT %s, v.contact, v.row, {as_json('v.before')}, v.after FROM {source}",
            [of.pk, *parameters],
        )
    return Counter(changed=len(changes), unchanged=len(pairs) - len(changes))


def give_back(rows: Sequence[tuple[int, str, Said]]) -> None:
    """Makes name and attributes of contacts what they were, by id. Part of the caller's transaction."""
    if rows:
        values = [(pk, said.name, written(said)) for pk, said in rows]
        _update(*staged("contact_befores", {"contact": int, "name": str, "attributes": str}, values))


def _update(source: str, parameters: Sequence[object]) -> None:
    run(
        f"UPDATE {table(Contact)} AS c SET name = v.name, attributes = {as_json('v.attributes')} "  # noqa: S608
        f"FROM {source} WHERE c.id = v.contact",
        parameters,
    )


def _suppressed(contacts: Sequence[NewContact]) -> Counter[str]:
    from_all, in_part = suppressed_among([contact.identity for contact in contacts])
    return Counter({"suppressed": len(from_all), "suppressed_in_part": len(in_part)})


def _there(of: ContactImport, contacts: Sequence[NewContact], *, lock: bool = False) -> dict[str, There]:
    """Those of them that are on the list, by identity, locked in this order. One look into the index for each: a
    planner that knows the table badly would read all of it."""
    if not contacts:
        return {}
    source, parameters = staged("contact_identities", {"identity": str}, [(each.identity,) for each in contacts])
    wanted = "c.contact_list_id = %s AND c.identity = v.identity"
    if is_postgres():
        found = f"SELECT * FROM {table(Contact)} AS c WHERE {wanted} LIMIT 1 {'FOR UPDATE' if lock else ''}"  # noqa: S608
        joined = f"{source} CROSS JOIN LATERAL ({found}) AS c"
    else:
        joined = f"{source} CROSS JOIN {table(Contact)} AS c WHERE {wanted}"
    rows = run(
        f"SELECT c.identity, c.id, c.address, c.name, c.attributes FROM {joined}",  # noqa: S608
        [*parameters, of.contact_list_id],
    )
    return {identity: There(pk, address, Said(name, _attributes(text))) for identity, pk, address, name, text in rows}


def _attributes(text: str) -> dict[str, object]:
    found = json.loads(text)
    return found if isinstance(found, dict) else {}


def _insert(of: ContactImport, contacts: Sequence[NewContact]) -> set[str]:
    """The identities of those that are on the list now and were not before."""
    if not contacts:
        return set()
    rows = []
    for each in contacts:
        attributes = written(each.said)
        after = digest(each.address, each.said.name, attributes)
        rows.append((each.row, each.address, each.identity, each.said.name, attributes, after))
    columns = {"row": int, "address": str, "identity": str, "name": str, "attributes": str, "after": str}
    source, parameters = staged("contact_rows", columns, rows)
    now = "%s::timestamptz" if is_postgres() else "%s"
    # The WHERE is SQLite's: without it "ON CONFLICT" after a SELECT reads as a join's ON.
    made = run(
        f"INSERT INTO {table(Contact)} (contact_list_id, address, identity, name, attributes, created_at) "  # noqa: S608
        f"SELECT %s, v.address, v.identity, v.name, {as_json('v.attributes')}, {now} FROM {source} WHERE true "
        "ON CONFLICT (contact_list_id, identity) DO NOTHING RETURNING identity, id",
        [of.contact_list_id, instant(database_now()), *parameters],
    )
    ids = dict(made)
    changes = [(ids[row[2]], row[0], row[5]) for row in rows if row[2] in ids]
    source, parameters = staged("contact_made", {"contact": int, "row": int, "after": str}, changes)
    run(
        f"INSERT INTO {table(ContactChange)} (contact_import_id, contact_id, row, after) "  # noqa: S608
        f"SELECT %s, v.contact, v.row, v.after FROM {source}",
        [of.pk, *parameters],
    )
    return set(ids)
