"""What is wrong with a template, said to the person who wrote it.

Knows no Jinja: it turns a part, a line and a sentence into one error.
"""


def describe_part(part: str) -> str:
    """The part as it stands in a sentence: "the subject", "the HTML", "the header X-Foo"."""
    return "the HTML" if part == "html" else f"the {part}"


class TemplateProblem(Exception):
    """A template cannot be compiled or rendered.

    `part` is "subject", "text", "html" or "header X-Foo", in a record "field a.b"; `line` counts from 1 in that part's
    source; `message` is a sentence for the operator that says what is wrong, where, and what to do.
    """

    def __init__(self, part: str, line: int, message: str) -> None:
        super().__init__(part, line, message)
        self.part = part
        self.line = line
        self.message = message

    def __str__(self) -> str:
        return self.message
