"""What is said of an engine over REST, and how what is said becomes one.

A credential goes in and never comes out; which of the stored ones stay is decided by `delivery.engine_settings`.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from datetime import date

from django.core.exceptions import ValidationError
from django.utils.timezone import now
from rest_framework import serializers

from delivery.api.requests import who
from delivery.api.setting_up import StrictSerializer, by_field, writing
from delivery.engine_changes import Snapshot, record
from delivery.engine_settings import Stored, judged_options, merged_secrets, shown
from delivery.engines import KINDS, EngineKind, problems_of
from delivery.exceptions import SecretUnreadable
from delivery.models import Engine, EngineLimit
from delivery.secrets import Sealed

KIND_STAYS = "An engine keeps its kind, {}: add another engine for another kind."
ONLY_SENDERS = "This kind writes mails and sends none: leave it out."
OF_SENDERS = ("sender_domains", "warmup_from", "warmup_caps", "warmup_target")
NEEDED = "This credential is needed."
MOST_LIMITS = 20
MOST_DOMAINS = 1000
YEARS = range(2000, 9000)

SHOWN = Engine.objects.prefetch_related("limits")


class LimitSerializer(StrictSerializer):
    """At most `quantity` of what it `counts` in each `period`, `burst` of them at once (null: one second's worth). One
    that is named by its id, or else is for the same period and counts the same as before, goes on where it is: what has
    been used of it is not forgotten."""

    id = serializers.IntegerField(required=False, min_value=1, max_value=2**63 - 1)

    class Meta:
        model = EngineLimit
        fields = ("id", "quantity", "counts", "period", "burst")

    def validate(self, given: dict[str, object]) -> EngineLimit:
        limit = EngineLimit(**given)
        try:
            limit.full_clean(exclude=("engine", "id"))
        except ValidationError as refusal:
            raise serializers.ValidationError(by_field(refusal)) from refusal
        return limit


class OptionsField(serializers.DictField):
    """Shown as anybody may read them."""

    def get_attribute(self, engine: Engine) -> dict[str, object]:
        return shown(KINDS.get(engine.kind), engine.options)


class DomainsField(serializers.ListField):
    """Domains, one on each line of the model's text."""

    child = serializers.RegexField(
        r"^[^\s]+\Z", max_length=253, error_messages={"invalid": "One domain, such as a.example."}
    )

    def get_attribute(self, engine: Engine) -> list[str]:
        return sorted(engine.domains)

    def to_internal_value(self, data: object) -> str:
        return "\n".join(super().to_internal_value(data))


class EngineSerializer(StrictSerializer):
    """An engine. `options` and `limits` are written as a whole; `GET engine-kinds/` says which options and credentials
    there are. A credential that is not given stays as it is stored; null forgets it. `***` stands for what is not
    shown; an option that is sent back as it was shown stays as it is."""

    kind = serializers.ChoiceField(
        [(kind.slug, kind.label) for kind in KINDS.values()],
        error_messages={"invalid_choice": f'"{{input}}" is none of {", ".join(KINDS)}.'},
    )
    options = OptionsField(required=False)
    credentials = serializers.DictField(
        child=serializers.CharField(max_length=4000, trim_whitespace=False, allow_null=True),
        write_only=True,
        required=False,
        help_text="By name. They are kept encrypted, and never shown.",
    )
    stored_credentials = serializers.SerializerMethodField(
        help_text="The names of those that are stored; null: they cannot be decrypted."
    )
    sender_domains = DomainsField(
        required=False,
        max_length=MOST_DOMAINS,
        help_text="The From domains it may send for, subdomains included. None: any.",
    )
    held = serializers.SerializerMethodField()
    limits = LimitSerializer(many=True, required=False, max_length=MOST_LIMITS)

    class Meta:
        model = Engine
        fields = (
            "id",
            "slug",
            "name",
            "kind",
            "enabled",
            "held",
            "held_until",
            "hold_reason",
            "options",
            "credentials",
            "stored_credentials",
            "sender_domains",
            "limits",
            "fault_threshold",
            "cool_off_seconds",
            "warmup_from",
            "warmup_caps",
            "warmup_growth",
            "warmup_target",
            "created_at",
            "changed_at",
        )
        read_only_fields = ("held_until", "hold_reason", "created_at", "changed_at")
        validators = []

    def validate_warmup_from(self, day: date | None) -> date | None:
        if day is not None and day.year not in YEARS:
            raise serializers.ValidationError("This is no first day of a warm-up. A good one: 2026-12-24.")
        return day

    def get_stored_credentials(self, engine: Engine) -> list[str] | None:
        stored = Stored.of(engine.secrets)
        return None if stored.unreadable else sorted(stored.secrets)

    def get_held(self, engine: Engine) -> bool:
        return engine.is_held(now())

    def validate(self, given: dict[str, object]) -> dict[str, object]:
        limits: list[EngineLimit] | None = given.pop("limits", None)
        options, credentials = given.pop("options", None), given.pop("credentials", None)
        before = self.instance or Engine()
        engine = copy(before)
        for field, value in given.items():
            setattr(engine, field, value)
        if self.instance and engine.kind != before.kind:
            raise serializers.ValidationError({"kind": [KIND_STAYS.format(before.kind)]})
        kind = KINDS.get(engine.kind)
        if kind and kind.composes and (wrong := [name for name in OF_SENDERS if given.get(name)]):
            raise serializers.ValidationError({name: [ONLY_SENDERS] for name in wrong})
        try:
            engine.clean_fields()
            engine.clean_warmup()
            engine.validate_unique()
        except ValidationError as refusal:
            raise serializers.ValidationError(by_field(refusal)) from refusal
        # What is not changed is not judged: who switches off an engine that cannot work need not mend it first.
        if kind and (self.instance is None or options is not None or credentials is not None):
            _settle(kind, engine, before, options, credentials or {})
        _refuse_foreign(limits, self.instance)
        return {"engine": engine, "limits": limits}

    def create(self, made: dict[str, object]) -> Engine:
        return _write(**made, by=who(self.context["request"]))

    def update(self, instance: Engine, made: dict[str, object]) -> Engine:
        return _write(**made, by=who(self.context["request"]))


def _settle(
    kind: EngineKind,
    engine: Engine,
    before: Engine,
    options: Mapping[str, object] | None,
    credentials: Mapping[str, str | None],
) -> None:
    """Puts options and credentials on the engine. Raises ValidationError."""
    problems: dict[str, object] = {}
    if options is not None or before.pk is None:
        engine.options, wrong = judged_options(kind, options or {}, before.options)
        if wrong:
            problems["options"] = wrong
    given, wrong = _cleaned(kind, credentials)
    if not wrong:
        stored = Stored.of(before.secrets)
        forgotten = [name for name, value in credentials.items() if value is None]
        secrets, wrong = merged_secrets(kind, stored, before.options, engine.options, given, forgotten)
        needed = [name for name, field in kind.fields().items() if name in kind.secret_fields and field.required]
        wrong |= {name: [NEEDED] for name in needed if name not in secrets and name not in wrong}
    if wrong:
        problems["credentials"] = wrong
    if problems:
        raise serializers.ValidationError(problems)
    if stored.unreadable or secrets != stored.secrets:
        try:
            engine.secrets = Sealed.seal(secrets)
        except SecretUnreadable as refusal:
            raise serializers.ValidationError({"credentials": [str(refusal)]}) from refusal
    if sentences := problems_of(engine):
        raise serializers.ValidationError({"options": sentences})


def _cleaned(kind: EngineKind, credentials: Mapping[str, str | None]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Those that are given, as the kind's form takes them, and what is wrong with which."""
    fields = {name: field for name, field in kind.fields().items() if name in kind.secret_fields}
    given, wrong = {}, {}
    for name, value in credentials.items():
        if name not in fields:
            wrong[name] = [f"There is no such credential. There is: {', '.join(fields) or 'none'}."]
        elif value is not None:
            try:
                given[name] = fields[name].clean(value)
            except ValidationError as refusal:
                wrong[name] = refusal.messages
    return given, wrong


def _refuse_foreign(limits: Sequence[EngineLimit] | None, engine: Engine | None) -> None:
    """Raises ValidationError for a limit whose id is none of this engine's, or is there twice."""
    own = {limit.pk for limit in engine.limits.all()} if engine else set()
    wrong: list[dict[str, object]] = []
    for limit in limits or ():
        known = limit.pk is None or limit.pk in own
        own.discard(limit.pk)
        wrong.append({} if known else {"id": ["This engine has no such limit: leave the id out for a new one."]})
    if any(wrong):
        raise serializers.ValidationError({"limits": wrong})


def _write(engine: Engine, limits: Sequence[EngineLimit] | None, by: str) -> Engine:
    """The engine as it is shown, after it and what changed of it were written."""
    with writing(engine):
        before = Snapshot(engine.pk) if engine.pk else None
        engine.save()
        if limits is not None:
            _write_limits(engine, limits)
        record(engine, before, by)
    return SHOWN.get(pk=engine.pk)


def _write_limits(engine: Engine, limits: Sequence[EngineLimit]) -> None:
    """A limit's bucket goes by its id: a new one would be full, and let a burst too many through."""
    left = {limit.pk: limit for limit in engine.limits.order_by("pk")}
    for limit in limits:
        left.pop(limit.pk, None)
    for limit in limits:
        limit.engine = engine
        if limit.pk is None:
            alike = (pk for pk, old in left.items() if (old.counts, old.period) == (limit.counts, limit.period))
            limit.pk = next(alike, None)
            left.pop(limit.pk, None)
        limit.save()
    EngineLimit.objects.filter(pk__in=left).delete()
