"""The form of a template: its name, and the words of its next version."""

from django import forms
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from delivery.templating import TemplateProblem, compile_content, html_to_text_template

WORDS = ("subject", "text", "html")
_MONOSPACE = "outreach-source max-w-none"


class TemplateForm(forms.ModelForm):
    """Shows the words of the latest version. What is wrong with new ones is said at their field, by line."""

    subject = forms.CharField(widget=UnfoldAdminTextInputWidget({"class": _MONOSPACE}))
    text = forms.CharField(
        required=False,
        strip=False,
        widget=UnfoldAdminTextareaWidget({"rows": 12, "class": _MONOSPACE, "spellcheck": "false"}),
        help_text="Empty: made from the HTML.",
    )
    html = forms.CharField(
        label="HTML",
        required=False,
        strip=False,
        widget=UnfoldAdminTextareaWidget({"rows": 28, "class": _MONOSPACE, "spellcheck": "false"}),
        help_text="Empty: a mail of plain text.",
    )

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        latest = self.instance.latest if self.instance.pk else None
        if latest is not None:
            made = "" if latest.text_from_html else latest.text
            self.initial |= {"subject": latest.subject, "text": made, "html": latest.html}

    def clean(self) -> dict[str, object]:
        cleaned = super().clean()
        # A browser sends CRLF, whatever the author wrote; a line end alone makes no new version.
        for part in ("text", "html"):
            cleaned[part] = (cleaned.get(part) or "").replace("\r\n", "\n")
        if not cleaned["text"].strip() and not cleaned["html"].strip():
            self.add_error("html", "Write a text, an HTML part, or both.")
        else:
            self._refuse_problems(cleaned.get("subject", ""), cleaned["text"], cleaned["html"])
        return cleaned

    def _refuse_problems(self, subject: str, text: str, html: str) -> None:
        try:
            compile_content(subject, text, html)
            if not text.strip():
                compile_content(subject, html_to_text_template(html), html)
        except TemplateProblem as problem:
            self.add_error(problem.part if problem.part in WORDS else None, problem.message)
