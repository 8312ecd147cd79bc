"""Engines and pools: what an operator configures, and beside it what the running system knows of each engine."""

import json
from datetime import datetime, time, timedelta
from hashlib import sha256

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.utils import timezone

from delivery.core.breaker import Breaker, BreakerPolicy, State
from delivery.core.dispatch import UncertainPolicy
from delivery.core.failover import EngineView, Strategy
from delivery.core.retry import FULL, Backoff, Growth, Jitter, RetryPolicy, RetryRule, Trouble
from delivery.core.throttle import Period, Rate
from delivery.core.warmup import Ramp
from delivery.secrets import Sealed, SealedField

WARMUP_HINT = "Enter whole numbers parted by commas, such as 150, 250, 400."

NO_SENDER = (
    "{} writes mails and sends none, so it cannot be in a pool: choose it as the composer of a step. A pool takes "
    "engines that send, such as an SMTP server."
)

STRATEGY_CHOICES = [
    (Strategy.PRIORITY.value, "priority: always the first engine that is able"),
    (Strategy.STICKY.value, "sticky: stay with the one that works until it fails"),
    (Strategy.WEIGHTED.value, "weighted: spread over all that are able, by weight"),
]
BACKOFF_CHOICES = [
    (Growth.EXPONENTIAL.value, "growing waits"),
    (Growth.CONSTANT.value, "always the first wait"),
    (Growth.IMMEDIATE.value, "at once"),
]
TROUBLE_CHOICES = [
    (Trouble.ENGINE.value, "the engine had trouble, and certainly did not take the mail"),
    (Trouble.MAILBOX.value, "the mailbox cannot take mail for now: full, greylisting"),
    (Trouble.UNKNOWN.value, "handed over, and the answer is not known"),
]
UNCERTAIN_CHOICES = [
    (UncertainPolicy.HOLD.value, "hold: keep it for a person to decide"),
    (UncertainPolicy.RESEND.value, "resend: try again, somebody may get the mail twice"),
]


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
    fault_threshold = models.PositiveSmallIntegerField(
        default=5,
        validators=[MinValueValidator(1), MaxValueValidator(10_000)],
        help_text="So many faults in a row open the circuit: then nothing goes through this engine for a while.",
    )
    cool_off_seconds = models.PositiveIntegerField(
        default=15,
        validators=[MinValueValidator(1), MaxValueValidator(86_400)],
        help_text="How long an open circuit waits before one mail probes it. Doubled each time the probe fails, up to "
        "ten minutes or this, whichever is longer.",
    )
    warmup_from = models.DateField(null=True, blank=True, help_text="The first day of a warm-up. Empty: there is none.")
    warmup_caps = models.CharField(
        max_length=500,
        blank=True,
        validators=[RegexValidator(r"^\s*[1-9]\d{0,8}(\s*,\s*[1-9]\d{0,8})*\s*$", WARMUP_HINT)],
        help_text="Mails in each of the first days, such as 150, 250, 400, 700, 1000, 1500, 2000.",
    )
    warmup_growth = models.FloatField(
        default=1.4,
        validators=[MinValueValidator(1.01), MaxValueValidator(10)],
        help_text="After the days listed, each day's number is that of the day before times this.",
    )
    warmup_target = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="Mails a day at which the warm-up is over. Empty: it is over after the days listed.",
    )
    # A hold is a person's word, apart from `enabled`, which is part of how the engine is set up.
    held = models.BooleanField(default=False, editable=False)
    held_until = models.DateTimeField(null=True, editable=False, help_text="When the hold ends by itself.")
    hold_reason = models.CharField(max_length=200, blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]
        permissions = [("hold_engine", "Can hold and release engines")]

    def __str__(self) -> str:
        return self.name

    def is_held(self, now: datetime) -> bool:
        """Whether a person has stopped it, and the hold has not ended by itself."""
        return self.held and (self.held_until is None or self.held_until > now)

    @property
    def domains(self) -> frozenset[str]:
        return frozenset(self.sender_domains.lower().split())

    def sends_for(self, domain: str) -> bool:
        """Whether mails from this domain may go through it; each domain listed stands for its subdomains too."""
        return EngineView(self.pk, Breaker(), domains=self.domains).sends_for(domain)

    @property
    def breaker_policy(self) -> BreakerPolicy:
        cool_off = timedelta(seconds=self.cool_off_seconds)
        return BreakerPolicy(self.fault_threshold, cool_off, max(cool_off, BreakerPolicy().longest))

    @property
    def ramp(self) -> Ramp | None:
        """The warm-up, from midnight of its first day in this installation's time zone."""
        if self.warmup_from is None or not self.warmup_caps:
            return None
        since = timezone.make_aware(datetime.combine(self.warmup_from, time.min))
        caps = tuple(int(cap) for cap in self.warmup_caps.split(","))
        return Ramp(since, caps, self.warmup_growth, self.warmup_target)

    @property
    def version(self) -> str:
        """Another one whenever what the engine is opened with has changed: kind, options, credentials."""
        return sha256(f"{self.kind}{json.dumps(self.options, sort_keys=True)}{self.secrets.token}".encode()).hexdigest()

    @property
    def warmup_key(self) -> str:
        """The bucket of the warm-up."""
        return f"engine-warmup:{self.pk}"

    def clean(self) -> None:
        from delivery.engines import problems_of  # the engines import this module

        self.clean_warmup()
        if problems := problems_of(self):
            raise ValidationError(problems)

    def clean_warmup(self) -> None:
        """Raises ValidationError."""
        if bool(self.warmup_from) != bool(self.warmup_caps):
            raise ValidationError("A warm-up needs both its first day and the mails of the first days.")
        if self.ramp and not self.ramp.ends:
            raise ValidationError(
                "This warm-up never reaches its target: with so small a last number the growth is less than one mail a "
                "day. List more days, or enter a larger growth."
            )


class Counted(models.TextChoices):
    """What a limit counts."""

    MESSAGES = "messages", "messages"
    CALLS = "calls", "calls (one may carry many messages)"


class EngineLimit(models.Model):
    """At most `quantity` messages or calls in each `period`, over all workers. An engine may have several limits."""

    engine = models.ForeignKey(Engine, on_delete=models.CASCADE, related_name="limits")
    quantity = models.PositiveIntegerField(
        validators=[MinValueValidator(1), MaxValueValidator(100_000_000)], help_text="Messages in each period."
    )
    period = models.CharField(max_length=6, choices=[(p.value, p.value) for p in Period], default=Period.SECOND)
    burst = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="How many may go at once, beside the steady flow. Empty: one second's worth, at least one. For a "
        "hard quota of 50,000 a day enter for instance 45,000 with a burst of 5,000.",
    )
    counts = models.CharField(max_length=8, choices=Counted, default=Counted.MESSAGES)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.quantity:,} {self.counts}/{self.period}"

    @property
    def rate(self) -> Rate:
        return Rate.of(self.quantity, Period(self.period), self.burst)

    @property
    def bucket_key(self) -> str:
        return f"engine-limit:{self.pk}"


class EngineEvent(models.Model):
    """One thing that a person did to an engine: what, by whom, why."""

    engine = models.ForeignKey(Engine, on_delete=models.CASCADE, related_name="events")
    what = models.CharField(max_length=300)
    by = models.CharField(max_length=150, blank=True)
    why = models.CharField(max_length=200, blank=True)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.engine_id}: {self.what}"


class EngineState(models.Model):
    """An engine's condition, as the workers share it in the database. Written by `delivery.shared.database` alone."""

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


class Bucket(models.Model):
    """The shared state of one token bucket: its theoretical arrival time in nanoseconds since the epoch."""

    key = models.CharField(max_length=100, primary_key=True)
    state = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return self.key


class RetryFields(models.Model):
    """How often and how far apart one delivery is tried."""

    max_attempts = models.PositiveSmallIntegerField(
        default=5,
        validators=[MinValueValidator(1), MaxValueValidator(100)],
        help_text="Tries of one delivery before it becomes a dead letter. Being told to slow down is no try.",
    )
    backoff = models.CharField(max_length=11, choices=BACKOFF_CHOICES, default=Growth.EXPONENTIAL)
    first_wait_seconds = models.PositiveIntegerField(
        default=60, validators=[MaxValueValidator(86_400)], help_text="The wait before the second try."
    )
    factor = models.FloatField(
        default=4.0,
        validators=[MinValueValidator(1), MaxValueValidator(100)],
        help_text="By how much a growing wait grows from one try to the next.",
    )
    longest_wait_seconds = models.PositiveIntegerField(
        default=3600, validators=[MaxValueValidator(7 * 86_400)], help_text="No wait is longer than this."
    )
    jitter_percent = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        validators=[MaxValueValidator(100)],
        help_text="Chance makes the wait shorter or longer by up to so many percent. Empty: anything from no wait to "
        "the whole, so that deliveries deferred together do not come back together.",
    )

    class Meta:
        abstract = True

    @property
    def rule(self) -> RetryRule:
        backoff = Backoff(
            growth=Growth(self.backoff),
            base=timedelta(seconds=self.first_wait_seconds),
            factor=self.factor,
            longest=timedelta(seconds=self.longest_wait_seconds),
            jitter=FULL
            if self.jitter_percent is None
            else Jitter(1 - self.jitter_percent / 100, 1 + self.jitter_percent / 100),
        )
        return RetryRule(self.max_attempts, backoff)


class Pool(RetryFields):
    """Engines in order of preference, how one of them is chosen, and how hard to try."""

    name = models.CharField(max_length=100, unique=True)
    slug = models.SlugField(max_length=100, unique=True, help_text="The name for commands and the API.")
    engines = models.ManyToManyField(Engine, through="PoolMember", related_name="pools")
    strategy = models.CharField(max_length=8, choices=STRATEGY_CHOICES, default=Strategy.PRIORITY)
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
        special = {Trouble(special.trouble): special.rule for special in self.special_rules.all()}
        return RetryPolicy(self.rule, timedelta(hours=self.max_age_hours), special)


class SpecialRule(RetryFields):
    """How one class of trouble is retried, where it differs from the pool's own way."""

    pool = models.ForeignKey(Pool, on_delete=models.CASCADE, related_name="special_rules")
    trouble = models.CharField(max_length=7, choices=TROUBLE_CHOICES)

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["pool", "trouble"], name="one_rule_per_trouble")]

    def __str__(self) -> str:
        return f"{self.pool}: {self.trouble}"


class PoolState(models.Model):
    """Which engine a sticky pool is with. Written by `delivery.shared.database` alone."""

    pool = models.OneToOneField(Pool, on_delete=models.CASCADE, primary_key=True, related_name="state")
    current = models.ForeignKey(Engine, on_delete=models.SET_NULL, null=True, related_name="+")

    def __str__(self) -> str:
        return f"{self.pool}: {self.current}"


class PoolMember(models.Model):
    """An engine's place in a pool."""

    pool = models.ForeignKey(Pool, on_delete=models.CASCADE, related_name="members")
    engine = models.ForeignKey(Engine, on_delete=models.PROTECT, related_name="memberships")
    position = models.PositiveSmallIntegerField(default=0, help_text="The lowest goes first.")
    weight = models.PositiveSmallIntegerField(
        default=1,
        validators=[MaxValueValidator(1000)],
        help_text="Its share of the mails in a weighted pool. 0: only when no other engine is able.",
    )

    class Meta:
        ordering = ["position", "id"]
        constraints = [models.UniqueConstraint(fields=["pool", "engine"], name="engine_once_per_pool")]

    def __str__(self) -> str:
        return f"{self.pool}: {self.engine}"

    def clean(self) -> None:
        from delivery.engines import composes  # the engines import this module

        if self.engine_id and composes(self.engine):
            raise ValidationError({"engine": NO_SENDER.format(self.engine.name)})
