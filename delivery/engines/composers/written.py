"""What a model wrote, judged: whether these words can be the body of a mail."""

from delivery.composed_body import tidy
from delivery.core.envelope import Kind, Outcome
from delivery.engines.composers.base import Composed

# A mail of words; what is longer is no mail but a model that does not come to an end.
MOST_TEXT = 20_000  # characters


def written(text: str, code: str = "") -> Composed:
    """The words, made fit to be kept and sent; or the outcome that says why they are none. `code` is the answer's."""
    body = tidy(text)
    if not body:
        # This prompt's affair, and another draw may do better: the engine is not to blame.
        return Composed(Outcome(Kind.TRANSIENT, code, "The answer has no text.", faults_engine=False))
    if len(body) > MOST_TEXT:
        complaint = (
            f"The answer is longer than {MOST_TEXT:,} characters: lower the token limit, or ask for fewer words."
        )
        return Composed(Outcome(Kind.MESSAGE, code, complaint))
    return Composed(Outcome(Kind.ACCEPTED, code), body)
