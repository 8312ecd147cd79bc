"""Workflows and their steps: what an operator sets up."""

from datetime import datetime

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils import timezone

from campaigns.exceptions import BadWindow
from campaigns.models.audience import Audience
from campaigns.models.template import Template
from campaigns.sequence import StepLines, problems_of
from campaigns.windows import WindowSettings
from delivery.addresses import ImpossibleAddress, normalise
from delivery.core.dispatch import UncertainPolicy
from delivery.core.window import ZONE_FIELD, Window
from delivery.models import Engine, EventKind, Pool
from delivery.models.engine import UNCERTAIN_CHOICES
from delivery.templating import TemplateProblem, compile_prompt


class RenderErrorPolicy(models.TextChoices):
    STOP = "stop", "stop: send nothing until it is mended"
    SKIP = "skip", "skip: leave these recipients out, and count them"


class Start(models.TextChoices):
    CHECKED = "checked", "when every recipient has been checked: nothing goes out if one cannot be rendered"
    AT_ONCE = "at_once", "at once: the first mails go out while the rest of the audience is still read"


def valid_address(value: str) -> None:
    """A validator: refuses what cannot be an address, with the reason."""
    try:
        normalise(value)
    except ImpossibleAddress as error:
        raise ValidationError(f"Not an address: {error}") from None


class OnFailed(models.TextChoices):
    SKIP = "skip", "skip: who depends on it gets nothing, and is counted"
    RELEASE = "release", "release: who depends on it gets the mail all the same"


class OnLate(models.TextChoices):
    EXPIRE = "expire", "expire: it is not sent, and counted"
    SEND = "send", "send late: it is sent all the same, and counted"


class Workflow(models.Model):
    """Who gets what from whom, through which pool, and what happens when something goes wrong."""

    name = models.CharField(max_length=200, unique=True)
    slug = models.SlugField(max_length=100, unique=True, help_text="The name for commands and the API.")
    audience = models.ForeignKey(Audience, on_delete=models.PROTECT, related_name="workflows")
    pool = models.ForeignKey(Pool, on_delete=models.PROTECT, related_name="workflows")
    from_name = models.CharField(max_length=200, blank=True)
    from_address = models.CharField(max_length=320, validators=[valid_address])
    reply_to = models.CharField(max_length=320, blank=True, validators=[valid_address])
    return_path = models.CharField(
        max_length=320, blank=True, validators=[valid_address], help_text="Where bounces go. Empty: the From address."
    )
    unsubscribe = models.BooleanField(
        default=True,
        help_text="Adds List-Unsubscribe headers and {{ unsubscribe_url }}. Needs OUTREACH_PUBLIC_URL.",
    )
    priority = models.SmallIntegerField(default=0, help_text="The lowest goes first.")
    on_uncertain = models.CharField(
        max_length=6,
        choices=UNCERTAIN_CHOICES,
        default=UncertainPolicy.HOLD,
        help_text="What to do with a mail that was handed over when the answer got lost (a crash, a cut line).",
    )
    on_render_error = models.CharField(
        max_length=4,
        choices=RenderErrorPolicy,
        default=RenderErrorPolicy.STOP,
        help_text="What to do when the template cannot be rendered for some recipients.",
    )
    start = models.CharField(
        max_length=7,
        choices=Start,
        default=Start.CHECKED,
        help_text="When the first mail may go out. At once: who cannot be rendered becomes a dead letter when his turn "
        "comes.",
    )
    time_limit_minutes = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(525_600)],
        help_text="A run that is not through so long after its start fails; what was not sent then expires. "
        "Empty: no limit.",
    )
    stop_on_reply = models.BooleanField(
        default=True, help_text="Who has replied to one of its mails gets no more of this run, where replies are known."
    )
    stop_on_bounce = models.BooleanField(
        default=True, help_text="Whose mail came back gets no more of this run, where bounces are known."
    )
    on_failed = models.CharField(
        max_length=7,
        choices=OnFailed,
        default=OnFailed.SKIP,
        help_text="What becomes of recipients that depend on one whose mail was not accepted.",
    )
    gap_microseconds = models.PositiveIntegerField(
        default=100,
        validators=[MaxValueValidator(1_000_000_000)],
        help_text="Between the acceptance of a mail and the beginning of those that depend on it, at least.",
    )
    window_hours = models.CharField(
        max_length=500,
        blank=True,
        help_text="When mails may go out: mon-fri 09:00-12:00, 13:00-17:30; sat 10:00-14:00. What is ready outside "
        "these hours waits for the next; a test run does not wait. Empty: at any hour.",
    )
    window_zone = models.CharField(
        max_length=64,
        blank=True,
        default=timezone.get_default_timezone_name,
        help_text="By the clocks of which time zone: its name, such as Europe/Zurich. Empty: this installation's.",
    )
    window_per_recipient = models.BooleanField(
        default=False,
        help_text="By the clock of each recipient. Whoever has no time zone, or one that nobody knows, has the above.",
    )
    window_zone_field = models.CharField(
        max_length=100,
        blank=True,
        default=ZONE_FIELD,
        help_text="The field of the audience that holds a recipient's time zone, by name, such as Asia/Tokyo.",
    )
    holiday_country = models.CharField(
        max_length=2,
        blank=True,
        help_text="Closed on the public holidays of this country: its two letters, such as CH. Empty: of none.",
    )
    holiday_subdivision = models.CharField(
        max_length=50, blank=True, help_text="Also on those of this part of it: ZH, for example."
    )
    closed_dates = models.CharField(
        max_length=2000,
        blank=True,
        help_text="Further dates on which nothing goes out: 2026-12-24, 2026-12-27 to 2026-12-31.",
    )
    created_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]
        permissions = [("send_workflow", "Can start, pause and cancel runs")]

    def __str__(self) -> str:
        return self.name

    @property
    def stops_on(self) -> list[str]:
        """The events after which a recipient gets no more of a run."""
        wanted = {EventKind.REPLIED: self.stop_on_reply, EventKind.BOUNCED: self.stop_on_bounce}
        return [kind.value for kind, stops in wanted.items() if stops]

    def clean(self) -> None:
        """Refuses a sending window that makes no sense, at its field and with a good example; and to begin before it is
        known who depends on whom."""
        if self.start == Start.AT_ONCE and self.audience_id and self.audience.depends_field:
            raise ValidationError(
                {
                    "start": "Recipients of this audience depend on each other, which is checked before the first mail "
                    "goes out: choose “when every recipient has been checked”."
                }
            )
        try:
            self.window(timezone.now())
        except BadWindow as refusal:
            raise ValidationError({refusal.field: str(refusal)}) from None

    def window(self, now: datetime) -> Window | None:
        """Its sending window for a run that begins `now`; None when mails go at any time. Raises BadWindow."""
        return WindowSettings(
            self.window_hours,
            self.window_zone or timezone.get_default_timezone_name(),
            self.window_per_recipient,
            self.window_zone_field or ZONE_FIELD,
            self.holiday_country,
            self.holiday_subdivision,
            self.closed_dates,
        ).window(now)


class Step(models.Model):
    """One message of a workflow."""

    workflow = models.ForeignKey(Workflow, on_delete=models.CASCADE, related_name="steps")
    position = models.PositiveSmallIntegerField(default=1)
    template = models.ForeignKey(Template, on_delete=models.PROTECT, related_name="steps")
    after = models.CharField(
        max_length=200,
        blank=True,
        help_text="The steps that it waits for, by their numbers, and what has to have become of their mails: "
        "“1”, “1, 2 opened”, “1 not replied”. Empty: it begins with the run.",
    )
    delay = models.CharField(
        max_length=100,
        blank=True,
        help_text="How long after these: “3 days”, “2 hours 30 minutes”, “next tuesday 9:00 their time”, "
        "“2 days, then mon-fri 9:00”. Empty: at once.",
    )
    condition = models.CharField(
        max_length=500,
        blank=True,
        help_text='Who gets it, as an expression over the recipient\'s data: plan == "gold". Empty: everybody.',
    )
    deadline_minutes = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(525_600)],
        help_text="So long after it is due a mail may go. The earliest deadline goes first. Empty: at any time.",
    )
    on_late = models.CharField(
        max_length=6,
        choices=OnLate,
        default=OnLate.EXPIRE,
        help_text="What becomes of a mail that cannot make its deadline.",
    )
    lead_seconds = models.FloatField(
        null=True,
        blank=True,
        validators=[MinValueValidator(0), MaxValueValidator(30 * 86_400)],
        help_text="So long before its deadline a mail goes, and not earlier. Empty: as soon as it may.",
    )
    thread = models.BooleanField(
        default=True, help_text="It answers the mail that it follows: mail programs show both as one conversation."
    )
    composer = models.ForeignKey(
        Engine,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="composed_steps",
        help_text="A language model that writes the text. The template gives the subject, and stands in for it when it "
        "fails. Empty: the template's text.",
    )
    prompt = models.TextField(
        blank=True, help_text="What the model is asked: Jinja2 with the recipient's data, as in a template."
    )
    review = models.BooleanField(
        default=False, help_text="A person reads what the model wrote before it goes out, under Composed texts."
    )

    class Meta:
        ordering = ["position"]
        constraints = [models.UniqueConstraint(fields=["workflow", "position"], name="step_position_once")]

    def __str__(self) -> str:
        return f"{self.workflow}, step {self.position}"

    @property
    def lines(self) -> StepLines:
        """What an operator has written for it."""
        return StepLines(self.position, self.after, self.delay, self.condition)

    def clean(self) -> None:
        """Refuses what makes no sense in one step by itself, by field."""
        problems = {problem.field: problem.words for problem in problems_of(self.lines)}
        problems |= self._composing_problems()
        if problems:
            raise ValidationError(problems)

    def _composing_problems(self) -> dict[str, str]:
        from delivery.engines import composes  # which brings all of them

        if self.composer is None:
            if self.prompt.strip():
                return {"composer": "Who is asked? Choose a composer, or leave the prompt empty."}
            return {}
        if not composes(self.composer):
            return {"composer": f"{self.composer} sends mails and writes none: choose a composer."}
        if not self.prompt.strip():
            return {"prompt": "What is the model asked? For example: Answer this mail in three sentences: {{ body }}"}
        try:
            compile_prompt(self.prompt)
        except TemplateProblem as problem:
            return {"prompt": str(problem)}
        return {}
