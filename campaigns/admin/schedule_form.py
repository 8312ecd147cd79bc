"""The form of a schedule. Its times are by the clock of the schedule's own time zone, not of the installation's."""

from datetime import UTC, datetime

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone
from unfold.widgets import UnfoldAdminSplitDateTimeWidget, UnfoldAdminTextInputWidget

from campaigns import scheduling
from campaigns.exceptions import BadSchedule
from campaigns.models.schedule import NEEDS
from campaigns.slots import Unit
from campaigns.wall_clock import instant_of, wall_time, zone_named
from delivery.queue import database_now

WALL_TIMES = ("at", "anchor", "starts_at", "ends_at")
BY_ITS_CLOCK = "By the clock of the time zone."


class WallTimeField(forms.SplitDateTimeField):
    """What a clock shows, as a naive datetime: whose clock it is, is said by another field."""

    widget = UnfoldAdminSplitDateTimeWidget

    def __init__(self, **kwargs: object) -> None:
        super().__init__(required=False, **kwargs)

    def compress(self, data_list: list) -> datetime | None:
        with timezone.override(UTC):  # which has every time once
            at = super().compress(data_list)
        return at and at.replace(tzinfo=None)


class ScheduleForm(forms.ModelForm):
    """Empties what another kind of schedule would need, and says at its field what makes no sense."""

    at = WallTimeField(label="At", help_text=BY_ITS_CLOCK)
    anchor = WallTimeField(label="Counted from", help_text=f"The first slot. {BY_ITS_CLOCK}")
    starts_at = WallTimeField(label="Not before", help_text=BY_ITS_CLOCK)
    ends_at = WallTimeField(label="Not after", help_text=BY_ITS_CLOCK)

    class Meta:
        labels = {"cron": "Cron line", "late_policy": "Missed slots", "late_grace_seconds": "Missed after (seconds)"}
        widgets = {
            "time_zone": UnfoldAdminTextInputWidget({"list": "time-zones", "autocomplete": "off"}),
            "cron": UnfoldAdminTextInputWidget({"class": "outreach-source max-w-2xl", "spellcheck": "false"}),
        }

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk is None:
            self.initial.setdefault("unit", Unit.MINUTES.value)
            return
        try:
            zone = zone_named(self.instance.time_zone)
        except BadSchedule:
            return  # it is said when the form is sent
        for field in WALL_TIMES:
            at = getattr(self.instance, field)
            self.initial[field] = at and wall_time(at, zone)

    def clean(self) -> dict[str, object]:
        cleaned = super().clean()
        for kind, needs in NEEDS.items():
            if kind != cleaned.get("kind"):
                for field in needs:
                    cleaned[field] = None if field in (*WALL_TIMES, "every") else ""
                    self.errors.pop(field, None)  # nobody sees what was typed there
        try:
            zone = zone_named(cleaned.get("time_zone") or "")
        except BadSchedule as refusal:
            if "time_zone" not in self.errors:
                self.add_error("time_zone", str(refusal))
            # Their instants are not known without it; kept out, that they are not judged.
            cleaned.update(dict.fromkeys(WALL_TIMES))
            return cleaned
        for field in WALL_TIMES:
            self._read_clock(field, zone)
        return cleaned

    def _read_clock(self, field: str, zone: object) -> None:
        if (wall := self.cleaned_data.get(field)) is not None:
            try:
                self.cleaned_data[field] = instant_of(wall, zone, field)
            except BadSchedule as refusal:
                self.add_error(field, str(refusal))

    def _post_clean(self) -> None:
        if "time_zone" in self.errors:
            return
        super()._post_clean()
        if not self.errors:
            try:
                scheduling.check(self.instance, database_now())
            except ValidationError as refusal:
                self._update_errors(refusal)

    def _update_errors(self, errors: ValidationError) -> None:
        """What is wrong with a field is said once: a date that cannot be read is not missing as well."""
        if hasattr(errors, "error_dict"):
            errors = ValidationError({name: of for name, of in errors.error_dict.items() if name not in self.errors})
            if not errors.error_dict:
                return
        super()._update_errors(errors)
