"""The steps of a workflow as they are entered: one form each, and what is wrong with them together.

What a line means and what goes together is decided by `campaigns.sequence`; here its problems come to their fields.
"""

from collections import Counter

from django import forms
from django.db import transaction
from unfold.forms import PaginationInlineFormSet
from unfold.widgets import UnfoldAdminTextareaWidget

from campaigns.admin.step_words import title_of
from campaigns.models import Step, Workflow
from campaigns.sequence import StepLines, problems_between

# Where a step waits while others take its number: beyond every number that a person gives.
PARKED = 30_000
NO_STEP = "A workflow needs a step: choose its template."
NO_DEADLINE = (
    "So long before which deadline? Enter one above, such as 120 minutes, or name the field with the recipients' "
    "deadlines on the page of the audience."
)
NO_DEADLINE_AFTER_ANOTHER = (
    "So long before which deadline? A step that waits for others needs its own: enter one above, such as 120 minutes."
)


class StepForm(forms.ModelForm):
    """One step. What is left empty is as usual."""

    class Meta:
        labels = {
            "position": "Number",
            "after": "Waits for",
            "delay": "How long after",
            "condition": "Only if",
            "thread": "In the same conversation",
            "deadline_minutes": "Deadline (minutes)",
            "on_late": "If it is late",
            "lead_seconds": "Just before the deadline (seconds)",
            "composer": "Written by",
            "review": "Review",
        }
        help_texts = {"position": "The steps name each other by it. Empty: the next one."}
        widgets = {"prompt": UnfoldAdminTextareaWidget({"rows": 5, "class": "outreach-source", "spellcheck": "false"})}

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            self.instance.get_inline_title = title_of(self.instance)
            lead = self.instance.lead_seconds
            self.initial["lead_seconds"] = lead if lead is None else f"{lead:g}"
        for name in ("position", "on_late"):
            if name in self.fields:  # who may only look has no fields
                self.fields[name].required = False

    def clean_position(self) -> int | None:
        """Among the others it is judged by the formset. 0 sorts before whatever a person means by first."""
        position = self.cleaned_data["position"]
        if position is not None and not 1 <= position < PARKED:
            raise forms.ValidationError(f"Numbers go from 1 to {PARKED - 1:,}.")
        return position

    def clean_on_late(self) -> str:
        return self.cleaned_data["on_late"] or Step._meta.get_field("on_late").default

    def _get_validation_exclusions(self) -> set[str]:
        """That a number is there once is seen by the formset: two steps may exchange theirs."""
        return {*super()._get_validation_exclusions(), "workflow"}


class StepFormSet(PaginationInlineFormSet):
    """The steps of one workflow."""

    def clean(self) -> None:
        self._steps = [form for form in self.forms if _is_filled(form) and not self._should_delete_form(form)]
        if not self._steps:
            raise forms.ValidationError(NO_STEP)
        self._number()
        if any(form.errors for form in self._steps):
            return
        self._refuse_doubled_numbers()
        self._refuse_lead_without_deadline()
        if not any(form.errors for form in self._steps):
            self._refuse_problems_between()

    def _number(self) -> None:
        """Gives those without a number the next ones."""
        last = max((form.cleaned_data.get("position") or 0 for form in self._steps), default=0)
        for form in self._steps:
            if form.cleaned_data.get("position") is None and "position" not in form.errors:
                last += 1
                form.cleaned_data["position"] = form.instance.position = last

    def _refuse_doubled_numbers(self) -> None:
        numbers = Counter(form.cleaned_data["position"] for form in self._steps)
        free = next(number for number in range(1, len(self._steps) + 2) if number not in numbers)
        for form in self._steps:
            number = form.cleaned_data["position"]
            if numbers[number] > 1:
                form.add_error("position", f"There are {numbers[number]} steps {number}: {free} is free, for example.")

    def _refuse_lead_without_deadline(self) -> None:
        workflow: Workflow = self.instance
        by_recipient = bool(workflow.audience_id and workflow.audience.deadline_field)
        for form in self._steps:
            step = form.instance
            if step.lead_seconds is None or step.deadline_minutes is not None:
                continue
            if step.after.strip():
                form.add_error("lead_seconds", NO_DEADLINE_AFTER_ANOTHER)
            elif not by_recipient:
                form.add_error("lead_seconds", NO_DEADLINE)

    def _refuse_problems_between(self) -> None:
        lines: list[StepLines] = [form.instance.lines for form in self._steps]
        at = {form.instance.position: form for form in self._steps}
        for problem in problems_between(lines, self.instance.stops_on):
            at[problem.position].add_error(problem.field, problem.words)

    def save(self, commit: bool = True) -> list[Step]:
        """Steps that change their number, or go, first make room: whoever takes it is written before or after."""
        if not commit:
            return super().save(commit=False)
        with transaction.atomic():
            for place, form in enumerate(self.initial_forms):
                if "position" in form.changed_data or self._should_delete_form(form):
                    Step.objects.filter(pk=form.instance.pk).update(position=PARKED + place)
            return super().save()


def _is_filled(form: forms.ModelForm) -> bool:
    """Whether a form stands for a step: one beyond the first that was left as it came stands for none."""
    return form.instance.pk is not None or form.has_changed() or not form.empty_permitted
