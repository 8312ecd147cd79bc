"""What a language model is asked, from the recipient's data: the same strict, bounded Jinja2 as in mails."""

from delivery.templating.part import Part
from delivery.templating.sandbox import PLAIN


def compile_prompt(source: str) -> Part:
    """The prompt, ready to be rendered for any number of recipients. Raises TemplateProblem."""
    return Part("prompt", source, PLAIN)
