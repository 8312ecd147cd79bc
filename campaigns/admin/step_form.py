"""The steps of a workflow as they are entered: one form each, and what is wrong with them together.

What a line means and what goes together is decided by `campaigns.sequence`; here its problems come to their fields.
"""

from django import forms
from django.db import transaction
from unfold.forms import PaginationInlineFormSet
from unfold.widgets import UnfoldAdminTextareaWidget

from campaigns.admin.step_words import title_of
from campaigns.models import Step, Workflow
from campaigns.sequence import NO_STEP, POSITIONS, numbered, problems_of_workflow

# Where a step waits while others take its number: beyond every number that a person gives.
PARKED = POSITIONS.stop


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
        if not any(form.errors for form in self._steps):
            self._refuse_problems()

    def _number(self) -> None:
        """Gives those without a number the next ones."""
        readable = [form for form in self._steps if "position" not in form.errors]
        numbers = numbered([form.cleaned_data.get("position") for form in readable])
        for form, number in zip(readable, numbers, strict=True):
            form.cleaned_data["position"] = form.instance.position = number

    def _refuse_problems(self) -> None:
        workflow: Workflow = self.instance
        by_recipient = bool(workflow.audience_id and workflow.audience.deadline_field)
        steps = [form.instance for form in self._steps]
        for problem in problems_of_workflow(steps, workflow.stops_on, recipients_have_deadlines=by_recipient):
            for form in self._steps:
                if form.instance.position == problem.position:
                    form.add_error(problem.field, problem.words)

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
