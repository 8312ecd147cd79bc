"""How template source becomes text, and when a template is stopped.

Strict, sandboxed Jinja2 with limits that fall at the same place in every thread. Knows no Django, no audience and no
queue; time, where a template needs it, is part of the data.
"""

from delivery.templating.condition import CompiledCondition
from delivery.templating.content import CompiledContent, Rendered, compile_content
from delivery.templating.limits import Budget, Limits
from delivery.templating.plaintext import html_to_text_template
from delivery.templating.problem import TemplateProblem
from delivery.templating.prompt import compile_prompt
from delivery.templating.record import CompiledRecord, compile_record
from delivery.templating.retyping import Omitted

__all__ = [
    "Budget",
    "CompiledCondition",
    "CompiledContent",
    "CompiledRecord",
    "Limits",
    "Omitted",
    "Rendered",
    "TemplateProblem",
    "compile_content",
    "compile_prompt",
    "compile_record",
    "html_to_text_template",
]
