"""Saves a template: every change makes a new immutable version. Also shows what somebody would get."""

from collections.abc import Mapping

from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction

from campaigns.models import Template, TemplateVersion
from delivery.composition import UNSUBSCRIBE_URL
from delivery.templating import Rendered, TemplateProblem, compile_content, html_to_text_template

EXAMPLE_URL = "https://outreach.example/u/example"  # where each recipient has a link of his own


def save_version(
    template: Template, *, subject: str, text: str, html: str, by: AbstractBaseUser | None = None
) -> TemplateVersion:
    """The version with these words: a new one, or the latest if nothing changed. Without a text, it is made from the
    HTML. Raises TemplateProblem."""
    if not text.strip() and not html.strip():
        raise TemplateProblem("text", 1, "The mail would be empty: write a text, an HTML part, or both.")
    made = not text.strip() and bool(html.strip())
    if made:
        compile_content(subject, "", html)  # a problem is reported in the words of the author, not of what was made
        text = html_to_text_template(html)
    compile_content(subject, text, html)
    words = {"subject": subject, "text": text, "html": html, "text_from_html": made}
    with transaction.atomic():
        # The lock keeps two authors from the same number.
        latest = Template.objects.select_for_update().get(pk=template.pk).latest
        if latest and all(getattr(latest, name) == value for name, value in words.items()):
            return latest
        number = latest.number + 1 if latest else 1
        return TemplateVersion.objects.create(template=template, number=number, created_by=by, **words)


def preview(*, subject: str, text: str, html: str, data: Mapping[str, object]) -> Rendered:
    """What somebody with this data would get. Without a text, it is made from the HTML. Raises TemplateProblem."""
    made = not text.strip() and bool(html.strip())
    content = compile_content(subject, html_to_text_template(html) if made else text, html)
    return content.render({UNSUBSCRIBE_URL: EXAMPLE_URL, **data})
