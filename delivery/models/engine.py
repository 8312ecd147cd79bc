"""Engines and pools: what an operator configures, and beside it what the running system knows of each engine."""

from datetime import timedelta

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from delivery.core.breaker import Breaker, State
from delivery.core.dispatch import UncertainPolicy
from delivery.core.retry import RetryPolicy
from delivery.core.throttle import Period, Rate
from delivery.secrets import Sealed, SealedField


class Engine(models.Model):
    """One way out, with its settings. `options` are plain, `secrets` are encrypted; `delivery.engines` knows which
    keys each kind has."""

    name = models.CharField(max_length=100, unique=True)
    slug = models.SlugField(max_length=100, unique=True, help_text="The name for commands and the API.")
    kind = models.CharField(max_length=30)
    options = models.JSONField(default=dict, blank=True)
    secrets = SealedField(default=Sealed, blank=True, editable=False)
    sender_domains = models.TextField(
        blank=True,
        help_text="The From domains this engine may send for, one per line, subdomains included. Empty: any.",
    )
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def domains(self) -> frozenset[str]:
        return frozenset(self.sender_domains.lower().split())

    def clean(self) -> None:
        from delivery.engines import problems_of  # the engines import this module

        problems = problems_of(self)
        if problems:
            raise ValidationError(problems)


class EngineLimit(models.Model):
    """At most `quantity` messages in each `period`, over all workers. An engine may have several limits."""

    engine = models.ForeignKey(Engine, on_delete=models.CASCADE, related_name="limits")
    quantity = models.PositiveIntegerField(
        validators=[MinValueValidator(1), MaxValueValidator(100_000_000)], help_text="Messages in each period."
    )
    period = models.CharField(max_length=6, choices=[(p.value, p.value) for p in Period], default=Period.SECOND)
    burst = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="How many may go at once. Empty: one second's worth, at least one.",
    )

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.quantity}/{self.period}"

    @property
    def rate(self) -> Rate:
        return Rate.of(self.quantity, Period(self.period), self.burst)

    @property
    def bucket_key(self) -> str:
        return f"engine-limit:{self.pk}"


class EngineState(models.Model):
    """What the workers share about an engine: circuit, pace, pause. Written by `delivery.engine_state` alone."""

    engine = models.OneToOneField(Engine, on_delete=models.CASCADE, primary_key=True, related_name="state")
    circuit = models.CharField(max_length=9, choices=[(s.value, s.value) for s in State], default=State.CLOSED)
    faults = models.PositiveIntegerField(default=0)
    cool_off_seconds = models.FloatField(default=0)
    probe_at = models.DateTimeField(null=True, blank=True)
    pace = models.FloatField(default=1.0)
    pace_changed_at = models.DateTimeField(null=True, blank=True)
    paused_until = models.DateTimeField(null=True, blank=True)
    last_error = models.CharField(max_length=600, blank=True)
    last_error_at = models.DateTimeField(null=True, blank=True)
    version = models.PositiveBigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.engine}: {self.circuit}"

    @property
    def breaker(self) -> Breaker:
        return Breaker(State(self.circuit), self.faults, timedelta(seconds=self.cool_off_seconds), self.probe_at)


class Bucket(models.Model):
    """The shared state of one token bucket: its theoretical arrival time in nanoseconds since the epoch."""

    key = models.CharField(max_length=100, primary_key=True)
    state = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return self.key


class Pool(models.Model):
    """Engines in order of preference, and how hard to try."""

    name = models.CharField(max_length=100, unique=True)
    slug = models.SlugField(max_length=100, unique=True, help_text="The name for commands and the API.")
    engines = models.ManyToManyField(Engine, through="PoolMember", related_name="pools")
    max_attempts = models.PositiveSmallIntegerField(
        default=5,
        validators=[MinValueValidator(1), MaxValueValidator(100)],
        help_text="Tries of one delivery before it becomes a dead letter. Being told to slow down is no try.",
    )
    first_wait_seconds = models.PositiveIntegerField(
        default=60,
        validators=[MaxValueValidator(86_400)],
        help_text="The longest wait before the second try; it grows fourfold with each further one, up to an hour.",
    )
    max_age_hours = models.PositiveIntegerField(
        default=24,
        validators=[MinValueValidator(1), MaxValueValidator(24 * 14)],
        help_text="A delivery that is not accepted this long after its first try becomes a dead letter.",
    )

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def retry_policy(self) -> RetryPolicy:
        return RetryPolicy(
            max_attempts=self.max_attempts,
            base=timedelta(seconds=self.first_wait_seconds),
            max_age=timedelta(hours=self.max_age_hours),
        )


class PoolMember(models.Model):
    """An engine's place in a pool."""

    pool = models.ForeignKey(Pool, on_delete=models.CASCADE, related_name="members")
    engine = models.ForeignKey(Engine, on_delete=models.PROTECT, related_name="memberships")
    position = models.PositiveSmallIntegerField(default=0, help_text="The lowest goes first.")

    class Meta:
        ordering = ["position", "id"]
        constraints = [models.UniqueConstraint(fields=["pool", "engine"], name="engine_once_per_pool")]

    def __str__(self) -> str:
        return f"{self.pool}: {self.engine}"


UNCERTAIN_CHOICES = [
    (UncertainPolicy.HOLD.value, "hold: keep it for a person to decide"),
    (UncertainPolicy.RESEND.value, "resend: try again, somebody may get the mail twice"),
]
