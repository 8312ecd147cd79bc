"""What becomes of a contact that is there already when a file names it again. Pure."""

import hashlib
import json
from collections.abc import Mapping
from typing import NamedTuple

from campaigns.models import ImportPolicy


class Said(NamedTuple):
    """What is said of a person beside the address."""

    name: str
    attributes: Mapping[str, object]


def merged(there: Said, new: Said, policy: str) -> Said:
    """What is said afterwards; equal to `there` when nothing changes. An empty cell never takes anything away."""
    if policy == ImportPolicy.KEEP:
        return there
    overwrite = policy == ImportPolicy.OVERWRITE
    attributes = dict(there.attributes)
    for name, value in new.attributes.items():
        lacks = name not in attributes or (value and attributes[name] in ("", None))
        if lacks or (overwrite and value):
            attributes[name] = value
    name = new.name if new.name and (overwrite or not there.name) else there.name
    return Said(name, attributes)


def written(said: Said) -> str:
    """The attributes as JSON, always in the same order."""
    return json.dumps(said.attributes, sort_keys=True)


def digest(address: str, name: str, attributes: str) -> str:
    """By which it is seen whether a contact is still as it was left; `attributes` as they are `written`."""
    return hashlib.blake2b(f"{address}\0{name}\0{attributes}".encode(), digest_size=16).hexdigest()
