"""Regular expressions that an operator writes and that cannot be slow.

Python's engine tries all ways to share a text out among the repetitions of a pattern: with one repetition inside
another their number doubles with each character, and a text of thirty holds a thread for hours. So the value's length
is limited, and so is what a pattern may hold: no group is repeated, nothing looks back or around, and open repetitions
and alternatives are few. What is left takes some 20 ms at the worst.
"""

import re
from collections.abc import Callable
from functools import lru_cache

LONGEST_VALUE = 100  # characters
LONGEST_PATTERN = 200  # characters
# Of +, *, ?, {m,n} and |. Four can share 100 characters out in 177,000 ways.
MOST_CHOICES = 4
_REFERENCE = re.compile(r"\\[1-9]|\\g|\(\?P=")
_ATOM = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)  # an escape, a set of characters
_REPEATED_GROUP = re.compile(r"\)[*+{]")
_CHOICE = re.compile(r"[*+?|]|\{[0-9]*,[0-9]*\}")


def problem_with_pattern(pattern: str) -> str:
    """What is wrong with a pattern, as a clause; "" when nothing is."""
    try:
        matcher(pattern)
    except ValueError as error:
        return str(error)
    return ""


@lru_cache(maxsize=256)
def matcher(pattern: str) -> Callable[[str], re.Match[str] | None]:
    """What matches a whole text. Raises ValueError, with a clause, for a pattern that is none or could be slow."""
    if len(pattern) > LONGEST_PATTERN:
        raise ValueError(f"the pattern is longer than {LONGEST_PATTERN} characters")
    if _REFERENCE.search(pattern):
        raise ValueError(f"the pattern {pattern} refers back to a group, which can be slow")
    bare = _ATOM.sub("x", pattern).replace("(?:", "(")
    if "(?" in bare:
        raise ValueError(f"the pattern {pattern} uses (?…), of which only (?:…) is allowed")
    if _REPEATED_GROUP.search(bare):
        raise ValueError(f"the pattern {pattern} repeats a group, which can be slow")
    if len(_CHOICE.findall(bare)) > MOST_CHOICES:
        raise ValueError(f"the pattern {pattern} has more than {MOST_CHOICES} of +, *, ?, {{m,n}} and |")
    try:
        return re.compile(pattern).fullmatch
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"the pattern {pattern} cannot be read: {error}") from None
