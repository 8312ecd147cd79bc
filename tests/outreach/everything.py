"""An installation in which there is one of each: what an address of the API may name is there, in every state."""

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta

from django.contrib.auth.models import User
from django.utils.timezone import now

from campaigns import control, scheduling
from campaigns.authoring import save_version
from campaigns.callbacks import webhooks
from campaigns.finish import ENDS, write_missing_logs
from campaigns.models import (
    Audience,
    AudienceBookmark,
    AudienceKind,
    Callback,
    CallbackAttempt,
    CallbackState,
    Contact,
    Mode,
    Outcome,
    Run,
    RunProblem,
    RunRequest,
    RunState,
    Schedule,
    ScheduleKind,
    Slot,
    Webhook,
    Workflow,
)
from delivery.hold import hold, release
from delivery.models import (
    Attempt,
    Delivery,
    DeliveryState,
    Engine,
    EngineLimit,
    Event,
    Pool,
    PoolMember,
    SpecialRule,
    Suppression,
    SuppressionReason,
    Tally,
)
from delivery.suppression import suppress
from outreach.models import AuditEntry
from tests.campaigns import cast, importing
from tests.delivery.composing import composed_batch
from tests.delivery.composing import ids_of as deliveries_of
from tests.outreach.access import token

Values = Sequence[Mapping[str, object]]
SECRET = "whsec_nobody-is-to-see-this"  # a setting that no answer may show
FILE = "email,name,city\nada@example.test,Ada,Paris\nlinus@example.test,Linus,Helsinki\nno address,Nobody,Nowhere\n"


class Everything:
    """Who may do everything, by a token; and by the beginning of an address the values that stand in it."""

    def __init__(self) -> None:
        self.user = User.objects.create(username="root", is_superuser=True, is_staff=True)
        self.token = token(self.user).text
        self.by_resource: dict[str, list[dict[str, object]]] = {}
        self._add_contacts()
        self._add_engines()
        self._add_workflow()
        self._add_runs()
        self._add_deliveries()
        self._add_callbacks()
        self._add_records()

    def values_for(self, path: str) -> list[dict[str, object]]:
        """Values for the names in this path of the document; none for one that has no names in it."""
        if "{" not in path:
            return []
        before, _, after = path.removeprefix("/api/v1/").partition("{")
        return self.by_resource["contacts" if after.startswith("contact_list_pk") else before[:-1]]

    def _add_contacts(self) -> None:
        friends = cast.contact_list()
        contact = Contact.objects.filter(contact_list=friends).first()
        done = importing.imported(friends, FILE)
        imports = [done, importing.checked(friends, FILE), importing.uploaded(friends, FILE)]
        self.by_resource["imports"] = [{"id": each.pk, "form": "csv"} for each in imports]
        self.by_resource["contacts"] = [{"contact_list_pk": friends.slug, "id": contact.pk}]
        self.by_resource["contact-lists"] = [{"id": friends.pk, "form": "jsonl"}]
        audiences = [
            Audience.objects.create(name="Friends", slug="friends", kind=AudienceKind.LIST, contact_list=friends),
            cast.csv_audience(FILE),
            Audience.objects.create(
                name="Shop",
                slug="shop",
                kind=AudienceKind.HTTP,
                options={"url": "http://127.0.0.1:9/people", "increment": {"field": "id", "parameter": "since"}},
            ),
        ]
        AudienceBookmark.objects.create(audience=audiences[-1], value="7", moved_at=now())
        self.by_resource["audiences"] = [{"id": each.slug} for each in audiences]

    def _add_engines(self) -> None:
        self.pool = cast.pool(slug="main", per_second=10)
        engine = Engine.objects.get(slug="main")
        EngineLimit.objects.create(engine=engine, quantity=1000, period="day", burst=1)
        SpecialRule.objects.create(pool=self.pool, trouble="unknown")
        hold(engine, "ada", "the provider asked for it")
        release(engine, "ada", "all is well")
        held = Engine.objects.create(name="Held", slug="held", kind="sandbox")
        hold(held, "ada", "a look at its reputation", now() + timedelta(hours=1))
        PoolMember.objects.create(pool=self.pool, engine=held, position=1)
        pools = [self.pool.slug, Pool.objects.create(name="Empty", slug="empty").slug]
        self.by_resource["engines"] = [{"id": each, "engine": each} for each in ("main", "held")]
        self.by_resource["pools"] = [{"id": each} for each in pools]
        self.by_resource["engine-kinds"] = [{"slug": each} for each in ("smtp", "ses", "sandbox")]

    def _add_workflow(self) -> None:
        audience = Audience.objects.get(slug="friends")
        version = cast.template("welcome", html="<p>Hello {{ name }}</p>")
        save_version(version.template, subject="Welcome", text="Hello {{ name }} of {{ city }}", html="", by=self.user)
        self.by_resource["templates"] = [{"id": "welcome", "number": number} for number in (1, 2)]
        self.workflow = cast.workflow("letters", audience=audience, version=version, through=self.pool)
        cast.add_step(self.workflow, 2, delay="1 hour")
        unused = Workflow.objects.create(
            name="Draft", slug="draft", audience=audience, pool=self.pool, from_address="letters@sender.example"
        )
        self.by_resource["workflows"] = [{"id": self.workflow.slug}, {"id": unused.pk}]
        schedule = Schedule(workflow=self.workflow, name="weekdays", kind=ScheduleKind.CRON, cron="0 9 * * 1-5")
        scheduling.check(schedule, now())
        scheduling.save(schedule, by="ada", now=now())
        Slot.objects.create(schedule=schedule, at=now())
        paused = Schedule(workflow=self.workflow, name="once", kind=ScheduleKind.ONCE, at=now() + timedelta(days=1))
        scheduling.check(paused, now())
        scheduling.save(paused, by="ada", now=now())
        scheduling.pause(paused, "ada", "not now")
        self.by_resource["schedules"] = [{"id": schedule.pk}, {"id": paused.pk}]

    def _add_runs(self) -> None:
        self.sending = cast.initialized(self.workflow)
        paused, cancelled = cast.initialized(self.workflow), cast.initialized(self.workflow)
        control.pause(paused, "ada", "the shop is closed")
        control.cancel(cancelled, "ada", "the wrong list")
        failed, tested = cast.queued(self.workflow), cast.queued(self.workflow, test_limit=1)
        over = {"ended_at": now(), "counts": dict.fromkeys(ENDS, 0)}
        Run.objects.filter(pk=failed.pk).update(state=RunState.FAILED, error="The audience cannot be read.", **over)
        RunProblem.objects.create(run=failed, kind="bad_row", reason="no_address", position=1, detail="Empty.")
        write_missing_logs()
        runs = [self.sending, paused, cancelled, failed, tested, cast.queued(self.workflow)]
        self.by_resource["runs"] = [{"id": each.pk, "form": "csv"} for each in runs]

    def _add_deliveries(self) -> None:
        """One of each state, as if they had got so far."""
        batch, engine = self.sending.batch, Engine.objects.get(slug="main")
        message = batch.messages.first()
        for state in DeliveryState:
            made = Delivery.objects.create(
                batch=batch,
                message=message,
                address=f"{state}@example.test",
                identity=f"{state}@example.test",
                data={"name": "Ada", "city": "London"},
                state=state,
                engine=engine,
                settled_at=now() if state in ENDS else None,
            )
        batch.last_id, batch.total = made.pk, batch.total + len(DeliveryState)
        batch.save()
        for state in ENDS:
            Tally.objects.create(batch=batch, state=state, shard=0, count=1)
        ended = Delivery.objects.filter(batch=batch, settled_at__isnull=False).order_by("pk")
        Attempt.objects.create(
            delivery=ended[1], engine=engine, kind="transient", code="451", words="busy", seconds=0.5, at=now()
        )
        Event.objects.create(delivery=ended[0], kind="opened", at=now(), source="a pixel")
        every = Delivery.objects.filter(batch=batch).order_by("-pk").values_list("pk", flat=True)
        self.by_resource["deliveries"] = [{"id": each, "form": "csv"} for each in every]
        composed = deliveries_of(composed_batch(2, review=True))
        wanted = Delivery.objects.get(pk=composed[0])
        wanted.composition.text, wanted.composition.state = "Dear Ann", "review"
        wanted.composition.composed_at = now()
        wanted.composition.save()
        self.by_resource["compositions"] = [{"delivery": each} for each in composed]

    def _add_callbacks(self) -> None:
        # Written without the check that would refuse it: a private address, so that nothing leaves this machine.
        hooks = [Webhook(name=name, url="http://127.0.0.1:9/hook", events=["run.*"]) for name in ("shop", "crm")]
        for hook in hooks:
            webhooks.add(hook, "ada")
        webhooks.switch_off(hooks[1].pk, "ada", "it is being moved")
        self.by_resource["webhooks"] = [{"id": each.pk} for each in hooks]
        told = [
            Callback.objects.create(
                webhook=hooks[0],
                run=self.sending,
                url=f"{hooks[0].url}?key={SECRET}",
                type="run.completed",
                body=json.dumps({"type": "run.completed"}),
                state=state,
                ended_at=None if state == CallbackState.WAITING else now(),
            )
            for state in CallbackState
        ]
        CallbackAttempt.objects.create(callback=told[-1], at=now(), seconds=0.5, status=500, words="on fire")
        self.by_resource["callbacks"] = [{"id": each.pk} for each in reversed(told)]

    def _add_records(self) -> None:
        suppress("gone@example.test", SuppressionReason.UNSUBSCRIBE, source="the page")
        self.by_resource["suppressions"] = [{"id": Suppression.objects.get().pk}]
        asked = [
            RunRequest.objects.create(
                mode=mode, outcome=outcome, workflow=self.workflow, run=run, by="root", seconds=0.1
            )
            for mode, outcome, run in (
                (Mode.SYNC, Outcome.STARTED, self.sending),
                (Mode.ASYNC, Outcome.REFUSED, None),
            )
        ]
        self.by_resource["requests"] = [{"id": each.pk} for each in asked]
        entry = AuditEntry.objects.create(
            user_name="root",
            user_id=self.user.pk,
            method="POST",
            route="api/v1/runs/",
            path="/api/v1/runs/",
            status=201,
            body_fields=["why"],
            address="192.0.2.1",
        )
        self.by_resource["audit"] = [{"id": entry.pk}]
