"""What a kind of engine must say of itself, so that admin, API and worker need not know any by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from django import forms

from delivery.engines.base import Engine
from delivery.engines.composers.base import Composer

Options = Mapping[str, object]
Secrets = Mapping[str, str]


def _nothing(options: Options) -> Mapping[str, object]:
    return {}


@dataclass(frozen=True, slots=True)
class EngineKind:
    """One kind of engine.

    `fields` makes the form fields of its settings, by option name, in the order shown; those in `secret_fields` are
    kept encrypted and never shown again. `problems` judges the settings without any network, a sentence for each
    problem. `open` makes the working engine from the engine's id and settings. `hint` says in one line for whom it is.
    `composes`: it writes the text of mails and sends none, so it has no place in a pool; `open` makes a Composer.
    `uses` says which of the `secret_fields` an engine with these options uses, and where each of them goes, as a value
    to compare: a credential that somebody entered for one server is not sent to another.
    """

    slug: str
    label: str
    fields: Callable[[], dict[str, forms.Field]]
    secret_fields: frozenset[str]
    problems: Callable[[Options, Secrets], list[str]]
    open: Callable[[int, Options, Secrets], Engine | Composer]
    hint: str = ""
    composes: bool = False
    uses: Callable[[Options], Mapping[str, object]] = _nothing
