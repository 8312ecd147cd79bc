"""The fixed cast of the tests on runs: people, a template, an audience, a pool, and the workflow that joins them.

Also how a run is brought to its end in this process. Decides nothing about what comes of it.
"""

import threading
from collections.abc import Callable, Iterable, Mapping

from django.db import connection

from campaigns.audiences.stored import store_upload
from campaigns.authoring import save_version
from campaigns.initialize import initialize
from campaigns.launch import launch
from campaigns.models import (
    Audience,
    AudienceKind,
    Contact,
    ContactList,
    Run,
    RunState,
    Step,
    Template,
    TemplateVersion,
    Trigger,
    Workflow,
)
from campaigns.work import pump
from delivery.addresses import ImpossibleAddress, identity, normalise
from delivery.models import Delivery, Engine, EngineLimit, KeptMail, Pool, PoolMember

Person = tuple[str, str, Mapping[str, object]]  # address, name, attributes

ADA: Person = ("ada@example.test", "Ada Lovelace", {"city": "London"})
GRACE: Person = ("Grace@Example.Test", "Grace Hopper", {"city": "New York"})
BJORN: Person = ("bjørn@bücher.example", "Bjørn Ås", {"city": "Oslo"})
PEOPLE = (ADA, GRACE, BJORN)
ADDRESSES = {"ada@example.test", "Grace@example.test", "bjørn@xn--bcher-kva.example"}

SUBJECT = "News for {{ name }}"
TEXT = "Hello {{ name }},\nhow is {{ city }}?\n"


def crowd(count: int) -> list[Person]:
    """So many people without a story."""
    return [(f"person-{n:05}@example.test", f"Person {n}", {"city": "Leeds"}) for n in range(1, count + 1)]


def contact_list(people: Iterable[Person] = PEOPLE, slug: str = "friends") -> ContactList:
    """A stored list of these people, their addresses as they were typed."""
    kept = ContactList.objects.create(name=slug.title(), slug=slug)
    Contact.objects.bulk_create(
        Contact(contact_list=kept, address=address, identity=_identity(address), name=name, attributes=attributes)
        for address, name, attributes in people
    )
    return kept


def _identity(address: str) -> str:
    try:
        return identity(normalise(address))
    except ImpossibleAddress:
        return address


def list_audience(people: Iterable[Person] = PEOPLE, slug: str = "friends") -> Audience:
    """The audience of a contact list of these people."""
    return Audience.objects.create(
        name=slug.title(), slug=slug, kind=AudienceKind.LIST, contact_list=contact_list(people, slug)
    )


def csv_audience(content: str | bytes, slug: str = "file", **settings: str) -> Audience:
    """The audience of an uploaded file."""
    audience = Audience.objects.create(name=slug.title(), slug=slug, kind=AudienceKind.CSV, **settings)
    store_upload(audience, f"{slug}.csv", [content.encode() if isinstance(content, str) else content])
    return audience


def template(slug: str = "news", *, subject: str = SUBJECT, text: str = TEXT, html: str = "") -> TemplateVersion:
    """The first version of a new template."""
    kept = Template.objects.create(name=slug.title(), slug=slug)
    return save_version(kept, subject=subject, text=text, html=html)


def pool(kind: str = "sandbox", *, slug: str = "main", per_second: int | None = None, **options: object) -> Pool:
    """A pool of one engine, which keeps every mail unless told otherwise."""
    engine = Engine.objects.create(name=slug.title(), slug=slug, kind=kind, options=options)
    if per_second is not None:
        EngineLimit.objects.create(engine=engine, quantity=per_second, period="second", burst=1)
    kept = Pool.objects.create(name=slug.title(), slug=slug)
    PoolMember.objects.create(pool=kept, engine=engine)
    return kept


def smtp_pool(port: int, *, per_second: int | None = None) -> Pool:
    """A pool of one SMTP server on this host."""
    return pool("smtp", slug="smtp", per_second=per_second, host="127.0.0.1", port=port, security="none")


def workflow(
    slug: str = "letters",
    *,
    audience: Audience | None = None,
    version: TemplateVersion | None = None,
    through: Pool | None = None,
    **settings: object,
) -> Workflow:
    """A workflow of one step, made of the cast wherever nothing else is given."""
    kept = Workflow.objects.create(
        name=slug.title(),
        slug=slug,
        audience=audience or list_audience(slug=f"{slug}-friends"),
        pool=through or pool(slug=f"{slug}-pool"),
        **{"from_name": "Letters", "from_address": "letters@sender.example", **settings},
    )
    Step.objects.create(workflow=kept, template=(version or template(f"{slug}-news")).template)
    return kept


def add_step(to: Workflow, position: int, version: TemplateVersion | None = None, **settings: object) -> Step:
    """One more step of a workflow."""
    version = version or template(f"{to.slug}-step-{position}", subject=f"Step {position} for {{{{ name }}}}")
    step = Step(workflow=to, position=position, template=version.template, **settings)
    step.full_clean()
    step.save()
    return step


def queued(of: Workflow, **options: object) -> Run:
    """A run that is worked on in this process."""
    return launch(of, trigger=Trigger.COMMAND, by="tester", here=True, **options)


def initialized(of: Workflow, **options: object) -> Run:
    """A run after its initialisation, whatever came of it."""
    return begun(queued(of, **options))


def begun(run: Run) -> Run:
    """A queued run after its initialisation, whatever came of it."""
    assert initialize(run.pk)
    return fresh(run)


def ended(of: Workflow, **options: object) -> Run:
    """A run that was worked on to its end."""
    return carried_out(queued(of, **options))


def carried_out(run: Run) -> Run:
    """A queued run that was worked on to its end."""
    run = begun(run)
    if run.state == RunState.SENDING:
        pump(run.batch_id)
    return fresh(run)


def fresh(run: Run) -> Run:
    """The run as it is in the database."""
    return Run.objects.select_related("workflow__audience", "workflow__pool", "batch").get(pk=run.pk)


def nonzero(counts: Mapping[str, int]) -> dict[str, int]:
    """The counts without those that are zero."""
    return {name: n for name, n in counts.items() if n}


def recipients(run: Run) -> list[str]:
    """Whom the run has a delivery for, in the order of writing."""
    return list(Delivery.objects.filter(batch=run.batch_id).order_by("pk").values_list("address", flat=True))


def kept_for(slug: str) -> list[str]:
    """Who got a mail through the sandbox engine of this name, sorted."""
    return sorted(KeptMail.objects.filter(engine__slug=slug).values_list("recipient", flat=True))


def story(run: Run) -> list[str]:
    """The states that the run went through."""
    return list(run.events.values_list("state", flat=True))


def side_by_side(count: int, deed: Callable[[int], object]) -> list[object]:
    """What `deed` returns in each of so many threads that begin together, each with a connection of its own."""
    start = threading.Barrier(count)
    results: list[object] = [None] * count

    def act(number: int) -> None:
        try:
            connection.ensure_connection()
            start.wait(10)
            results[number] = deed(number)
        finally:
            connection.close()

    threads = [threading.Thread(target=act, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results
