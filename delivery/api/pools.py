"""Pools: engines in order of preference, how one of them is chosen, how hard it is tried."""

from collections.abc import Sequence
from copy import copy

import django_filters
from django.core.exceptions import ValidationError
from django.db.models import Prefetch
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_view
from rest_framework import serializers

from delivery.api.narrowing import NamedFilter
from delivery.api.setting_up import SettingUpViewSet, StrictSerializer, by_field, writing
from delivery.core.failover import Strategy
from delivery.models import Engine, Pool, PoolMember, SpecialRule

RETRY = ("max_attempts", "backoff", "first_wait_seconds", "factor", "longest_wait_seconds", "jitter_percent")
NOBODY = 'A pool has at least one engine, such as [{{"engine": "relay"}}].'  # a format string
MOST_MEMBERS = 100

SHOWN = Pool.objects.prefetch_related(
    Prefetch("members", PoolMember.objects.select_related("engine").order_by("position", "pk")),
    Prefetch("special_rules", SpecialRule.objects.order_by("pk")),
)


class MemberSerializer(StrictSerializer):
    """An engine's place in a pool. Without a `position` it is that in the list; the lowest goes first."""

    engine_slug = serializers.CharField(source="engine.slug", read_only=True)
    position = serializers.IntegerField(required=False, min_value=0, max_value=32_767)

    class Meta:
        model = PoolMember
        fields = ("engine", "engine_slug", "position", "weight")
        validators = []

    def to_internal_value(self, data: object) -> dict[str, object]:
        # What was shown of a member may come back: it says no more than its engine does.
        if isinstance(data, dict) and "engine" in data:
            data = {name: value for name, value in data.items() if name != "engine_slug"}
        return super().to_internal_value(data)

    def validate(self, given: dict[str, object]) -> PoolMember:
        member = PoolMember(**{"position": None} | given)
        try:
            member.full_clean(exclude=("pool", "position"), validate_unique=False, validate_constraints=False)
        except ValidationError as refusal:
            raise serializers.ValidationError(by_field(refusal)) from refusal
        return member


class SpecialRuleSerializer(StrictSerializer):
    """How one class of trouble is retried, where it differs from the pool's own way."""

    class Meta:
        model = SpecialRule
        fields = ("trouble", *RETRY)
        validators = []

    def validate(self, given: dict[str, object]) -> SpecialRule:
        rule = SpecialRule(**given)
        try:
            rule.full_clean(exclude=("pool",), validate_unique=False, validate_constraints=False)
        except ValidationError as refusal:
            raise serializers.ValidationError(by_field(refusal)) from refusal
        return rule


class PoolSerializer(StrictSerializer):
    """A pool. `members` and `special_rules` are written as a whole."""

    members = MemberSerializer(
        many=True,
        max_length=MOST_MEMBERS,
        allow_empty=False,
        error_messages={"required": NOBODY, "null": NOBODY, "empty": NOBODY},
    )
    special_rules = SpecialRuleSerializer(many=True, required=False, max_length=3)

    class Meta:
        model = Pool
        fields = ("id", "name", "slug", "strategy", *RETRY, "max_age_hours", "members", "special_rules")
        validators = []

    def validate_members(self, members: list[PoolMember]) -> list[PoolMember]:
        _refuse_doubled([member.engine_id for member in members], "engine", "This engine is in the list already.")
        for place, member in enumerate(members):
            member.position = place if member.position is None else member.position
        return members

    def validate_special_rules(self, rules: list[SpecialRule]) -> list[SpecialRule]:
        _refuse_doubled([rule.trouble for rule in rules], "trouble", "There is a rule for this already.")
        return rules

    def validate(self, given: dict[str, object]) -> dict[str, object]:
        members, rules = given.pop("members", None), given.pop("special_rules", None)
        pool = copy(self.instance) if self.instance else Pool()
        for field, value in given.items():
            setattr(pool, field, value)
        try:
            pool.full_clean()
        except ValidationError as refusal:
            raise serializers.ValidationError(by_field(refusal)) from refusal
        return {"pool": pool, "members": members, "rules": rules}

    def create(self, made: dict[str, object]) -> Pool:
        return _write(**made)

    def update(self, instance: Pool, made: dict[str, object]) -> Pool:
        return _write(**made)


def _refuse_doubled(values: Sequence[object], field: str, words: str) -> None:
    """Raises ValidationError, by place."""
    wrong = [{field: [words]} if value in values[:place] else {} for place, value in enumerate(values)]
    if any(wrong):
        raise serializers.ValidationError(wrong)


def _write(pool: Pool, members: Sequence[PoolMember] | None, rules: Sequence[SpecialRule] | None) -> Pool:
    """The pool as it is shown, after it was written with these members and rules, or with those that it has."""
    with writing(pool):
        pool.save()
        for model, rows in ((PoolMember, members), (SpecialRule, rules)):
            if rows is not None:
                model.objects.filter(pool=pool).delete()
                for row in rows:
                    row.pool = pool
                model.objects.bulk_create(rows)
    return SHOWN.get(pk=pool.pk)


class PoolFilter(django_filters.FilterSet):
    engine = NamedFilter(Engine, field_name="members__engine", help_text="Those that an engine is in.")
    strategy = django_filters.ChoiceFilter(choices=[(each.value, each.value) for each in Strategy])

    class Meta:
        model = Pool
        fields = ()


EXAMPLE = OpenApiExample(
    "One relay, and another when it fails",
    {
        "name": "Main",
        "slug": "main",
        "strategy": "priority",
        "max_attempts": 5,
        "members": [{"engine": "relay"}, {"engine": "ses"}],
        "special_rules": [{"trouble": "mailbox", "max_attempts": 8, "first_wait_seconds": 300}],
    },
    request_only=True,
)


@extend_schema_view(
    create=extend_schema(examples=[EXAMPLE]),
    partial_update=extend_schema(
        examples=[OpenApiExample("Three tries", {"max_attempts": 3}, request_only=True)],
    ),
)
class PoolViewSet(SettingUpViewSet):
    """A pool is named by its slug or its id."""

    queryset = SHOWN
    serializer_class = PoolSerializer
    filterset_class = PoolFilter
    ordering = "name"
    ordering_fields = ("id", "name", "slug")
