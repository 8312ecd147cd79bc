"""Checks a message against its audience before anything is sent: names first, then every recipient.

Decides nothing about rendering itself; that is `delivery.templating`, the same code that makes the mails.
"""

from collections.abc import Iterable

from campaigns.exceptions import NotReady
from delivery.composition import UNSUBSCRIBE_URL, CompiledMessage


def refuse_missing_names(compiled: CompiledMessage, fields: Iterable[str], has_link: bool, audience: str) -> None:
    """Raises NotReady when the template needs a variable that the audience does not have."""
    known = set(fields) | ({UNSUBSCRIBE_URL} if has_link else set())
    missing = sorted(compiled.content.variables - known)
    if not missing:
        return
    places = []
    for name in missing:
        part, line = compiled.content.where(name)
        hint = ""
        if name == UNSUBSCRIBE_URL:
            hint = " (it is there when the workflow adds unsubscribe links and OUTREACH_PUBLIC_URL is set)"
        places.append(f"{name!r} in line {line} of the {part}{hint}")
    raise NotReady(
        f"The template needs what {audience} does not have: {'; '.join(places)}. "
        f"The audience has: {', '.join(sorted(known))}. Correct the template, or add the field to the audience."
    )
