"""A stored Audience -> the Source that reads it; and uploads, kept in pieces in the database.

Decides which settings a kind of audience needs. How each source reads is the sources' own business.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network

from django.core.exceptions import ValidationError
from django.db import connection, transaction

from campaigns.audiences.bookmarks import begin_reading
from campaigns.audiences.columns import Columns
from campaigns.audiences.contact_list import Contact as ContactValue
from campaigns.audiences.contact_list import ContactListSource
from campaigns.audiences.csv_file import CsvSource
from campaigns.audiences.exceptions import AudienceError, AudienceRefused, AudienceUnreachable
from campaigns.audiences.http_fetch import Surroundings
from campaigns.audiences.http_json import HttpJsonSource
from campaigns.audiences.http_settings import CREDENTIAL, HttpSettings, Secrets, problems_with
from campaigns.audiences.json_increment import Reading
from campaigns.audiences.json_types import Type, Unfit
from campaigns.audiences.rows import Source
from campaigns.audiences.sql_check import check_query
from campaigns.audiences.sql_connection import SqlConnection
from campaigns.audiences.sql_query import SqlSource
from campaigns.conf import conf
from campaigns.models import Audience, AudienceKind, Contact, ContactList, Upload, UploadChunk
from delivery.conf import conf as delivery_conf
from delivery.exceptions import SecretUnreadable

CHUNK = 1024 * 1024  # octets of an upload in one row, before compression
CONTACTS_AT_ONCE = 2000


def open_source(audience: Audience, around: Surroundings | None = None, *, patient: bool = True) -> Source:
    """The source of an audience. Raises AudienceError when its settings do not do. `around` is what is outside for
    one that goes over HTTP: clocks, chance, networks; not `patient` is for a person who waits at a page: then each
    page of it is asked for once."""
    label = f"audience {audience.name!r}"
    columns = {"address_field": audience.address_field or None, "name_field": audience.name_field or None}
    match audience.kind:
        case AudienceKind.LIST:
            if audience.contact_list is None:
                raise AudienceRefused(label, "it has no contact list", "Choose one")
            return _contacts(audience.contact_list)
        case AudienceKind.CSV:
            upload = Upload.objects.filter(audience=audience).first()
            if upload is None:
                raise AudienceRefused(label, "it has no file", "Upload one")
            return CsvSource(
                lambda: read_upload(upload),
                label=f"{label} ({upload.filename})",
                encoding=audience.encoding or None,
                delimiter=audience.delimiter or None,
                **columns,
            )
        case AudienceKind.SQL:
            return SqlSource(_connection(audience), audience.query, label=label, **columns)
        case AudienceKind.HTTP:
            bookmark, read_to_the_end = begin_reading(audience)
            return HttpJsonSource(
                _http_settings(audience, label, patient=patient),
                label=label,
                bookmark=bookmark,
                read_to_the_end=read_to_the_end,
                around=around or Surroundings(networks=http_networks()),
                **columns,
            )
    raise AudienceRefused(
        label, f"there is no kind {audience.kind!r}", f"Choose one of {', '.join(AudienceKind.values)}"
    )


def refuse_bad_settings(audience: Audience) -> None:
    """Raises ValidationError, by field, for settings that cannot work. Asks no database of the operator's."""
    errors: dict[str, str] = {}
    if audience.kind == AudienceKind.LIST and audience.contact_list_id is None:
        errors["contact_list"] = "Choose the list."
    if audience.kind == AudienceKind.SQL:
        try:
            check_query(audience.query, _connection(audience).dialect)
        except AudienceError as error:
            errors["query" if audience.connection in conf().audience_databases else "connection"] = str(error)
    if errors:
        raise ValidationError(errors)
    if audience.kind == AudienceKind.HTTP:
        _refuse_bad_http(audience)


# ---- HTTP ----


def http_networks() -> tuple[IPv4Network | IPv6Network, ...]:
    """What a list may be read from beside the public internet."""
    return delivery_conf().allowed_networks


def _refuse_bad_http(audience: Audience) -> None:
    """Each problem is an error of the field "options" whose `code` is the setting that it is about."""
    try:
        secrets = audience.secrets.open()
    except SecretUnreadable as error:
        secrets, problems = {}, {CREDENTIAL: str(error)}
    else:
        problems = problems_with(audience.options, secrets, http_networks()) or _joint_problems(audience, secrets)
    if problems:
        raise ValidationError(
            {"options": [ValidationError(f"{name}: {words}", code=name) for name, words in problems.items()]}
        )


def _joint_problems(audience: Audience, secrets: Secrets) -> dict[str, str]:
    """What does not go together with the rest of the audience, of settings that are right by themselves."""
    settings = HttpSettings.of(audience.options, secrets)
    if settings.since is not None and audience.pk:
        try:
            Reading(settings.since, begin_reading(audience)[0])
        except Unfit as unfit:
            return {"since_type": f"{unfit}: choose the type that it has, or let it be read from the beginning first."}
    fields = settings.fields
    if not fields:
        return {}
    names = [field.name for field in fields]
    given = {"address_field": audience.address_field or None, "name_field": audience.name_field or None}
    try:
        columns = Columns.of("the fields", names, **given)
    except AudienceRefused as error:
        return {"fields": str(error)}
    for field in fields:
        if field.name in (columns.address, columns.name) and field.type is not Type.TEXT:
            return {"fields": f"The field {field.name!r} must be a text: write {field.name} = {field.written}."}
    return {}


def _http_settings(audience: Audience, label: str, *, patient: bool) -> HttpSettings:
    try:
        secrets = audience.secrets.open()
    except SecretUnreadable as error:
        raise AudienceRefused(label, str(error), "Then start again") from None
    # What was stored may have been right when it was: networks change.
    for name, words in problems_with(audience.options, secrets, http_networks()).items():
        raise AudienceRefused(label, f"its setting {name} cannot be used: {words}", "Correct it and save the audience")
    settings = HttpSettings.of(audience.options, secrets)
    return settings if patient else replace(settings, limits=replace(settings.limits, attempts=1))


def _connection(audience: Audience) -> SqlConnection:
    known = conf().audience_databases
    if audience.connection not in known:
        names = ", ".join(sorted(known)) or "none"
        raise AudienceRefused(
            f"audience {audience.name!r}",
            f"there is no connection {audience.connection!r} (there is: {names})",
            "Name one in OUTREACH_AUDIENCE_DATABASES",
        )
    return SqlConnection(audience.connection, known[audience.connection])


# ---- contact lists ----


def _contacts(contact_list: ContactList) -> ContactListSource:
    contacts = Contact.objects.filter(contact_list=contact_list)
    fields = ("email", "name", *(f for f in attribute_names(contact_list) if f not in ("email", "name")))
    return ContactListSource(
        lambda: _in_pieces(contact_list), fields, f"contact list {contact_list.name!r} ({contacts.count()} contacts)"
    )


def _in_pieces(contact_list: ContactList) -> Iterator[Sequence[ContactValue]]:
    """By ranges of the primary key: no cursor is held open between two pieces, whatever happens in between."""
    last = 0
    while True:
        rows = Contact.objects.filter(contact_list=contact_list, pk__gt=last).order_by("pk")
        piece = list(rows.values_list("pk", "address", "name", "attributes")[:CONTACTS_AT_ONCE])
        if not piece:
            return
        last = piece[-1][0]
        yield [
            (address, name, {"email": address, "name": name, **(more if isinstance(more, dict) else {})})
            for _, address, name, more in piece
        ]


def attribute_names(contact_list: ContactList) -> list[str]:
    """The names of all attributes that any contact of the list has."""
    if connection.vendor == "postgresql":
        names, objects = "jsonb_object_keys(attributes)", "jsonb_typeof(attributes) = 'object'"
        source = Contact._meta.db_table
    else:
        names, objects = "json_each.key", "json_type(attributes) = 'object'"
        source = f"{Contact._meta.db_table}, json_each(attributes)"
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT DISTINCT {names} FROM {source} WHERE contact_list_id = %s AND {objects}",  # noqa: S608
            [contact_list.pk],
        )
        return sorted(name for (name,) in cursor.fetchall())


# ---- uploads ----


def store_upload(audience: Audience, filename: str, chunks: Iterable[bytes]) -> Upload:
    """Keeps a file as the audience's upload, in place of the one before."""
    with transaction.atomic():
        Upload.objects.filter(audience=audience).delete()
        upload = Upload.objects.create(audience=audience, filename=filename[:255], size=0)
        for position, piece in enumerate(pieces(chunks)):
            upload.size += len(piece)
            UploadChunk.objects.create(upload=upload, position=position, content=zlib.compress(piece))
        upload.save(update_fields=["size"])
    return upload


def pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same octets in pieces of CHUNK."""
    held = b""
    for chunk in chunks:
        held += chunk
        while len(held) >= CHUNK:
            yield held[:CHUNK]
            held = held[CHUNK:]
    if held:
        yield held


def read_upload(upload: Upload) -> Iterator[bytes]:
    """The file, piece by piece. Raises AudienceUnreachable when another takes its place meanwhile: what was read by
    then must not pass for the whole."""
    position = octets = 0
    while octets < upload.size:
        chunk = UploadChunk.objects.filter(upload=upload, position=position).first()
        if chunk is None:
            raise AudienceUnreachable(f"the file {upload.filename}", "it was replaced while it was read", "Start again")
        piece = zlib.decompress(bytes(chunk.content))
        yield piece
        octets += len(piece)
        position += 1
