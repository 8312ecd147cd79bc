"""The part of an audience's form that is about a list over HTTP: its fields, and how credentials pass through them.

A credential goes in and never comes out: a stored one is kept when its field stays empty, and goes when there is
nothing it would be needed for, or to whom the URL now leads.
"""

from django import forms
from django.core.exceptions import ValidationError
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminPasswordWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from campaigns.audiences.http_paging import STYLES, Style
from campaigns.audiences.http_settings import AUTH, CREDENTIAL, MAX_TEXT, NUMBERS, TYPES_SINCE
from campaigns.audiences.http_url import ELSEWHERE, leads_elsewhere
from campaigns.audiences.json_types import Type
from campaigns.models import AudienceKind
from delivery.exceptions import SecretUnreadable
from delivery.secrets import Sealed

HTTP = "http_"
ENTER_AGAIN = "Enter it again: it is never sent back to a page."


def _line(label: str, help_text: str = "", **attributes: str) -> forms.Field:
    widget = UnfoldAdminTextInputWidget(attributes)
    return forms.CharField(label=label, required=False, max_length=2000, help_text=help_text, widget=widget)


def _area(label: str, help_text: str, rows: int) -> forms.Field:
    widget = UnfoldAdminTextareaWidget({"rows": rows, "class": "outreach-source", "spellcheck": "false"})
    return forms.CharField(label=label, required=False, max_length=MAX_TEXT, help_text=help_text, widget=widget)


def _choice(label: str, choices: dict[str, str], help_text: str = "") -> forms.Field:
    offered = list(choices.items())
    widget = UnfoldAdminSelectWidget(choices=offered)
    first = offered[0][0]
    return forms.ChoiceField(
        label=label, required=False, choices=offered, initial=first, help_text=help_text, widget=widget
    )


def _number(name: str, label: str, help_text: str = "") -> forms.Field:
    low, high, usual = NUMBERS[name]
    return forms.IntegerField(
        label=label,
        required=False,
        min_value=low,
        max_value=high,
        help_text=f"{help_text} Empty: {usual:,}.".strip(),
        widget=UnfoldAdminIntegerFieldWidget,
    )


_GROWING = {Type.DATETIME.value: Type.DATETIME.value} | {name: name for name in TYPES_SINCE}

# By setting, in the order shown.
SETTINGS: dict[str, forms.Field] = {
    "url": _line("URL", "Where the list is, such as https://api.example/v1/people."),
    "parameters": _area("Query parameters", "One per line, name=value, such as status=active.", 2),
    "headers": _area("Further headers", "One per line, Name: value. Not for credentials: they are shown here.", 2),
    "auth": _choice("Authentication", AUTH),
    "username": _line("User name", autocomplete="off"),
    "key_name": _line("Name of the key's header or parameter", "Such as X-Api-Key."),
    "items": _line("Where the list lies", "A path such as data.items. Empty: the document itself is the list."),
    "fields": _area(
        "Fields",
        "One per line, name = path : type, such as email = contact.email or age = profile.age : optional integer. "
        f'Types: {", ".join(Type)}; none: text. In quotes, a text with paths in braces: email = "{id}@example.org". '
        "Empty: every plain value of an item, under its own name.",
        6,
    ),
    "paging": _choice("Pages", STYLES),
    "next_path": _line(
        "Where the next link or cursor is", 'A path in the page, such as links.next or ["@odata.nextLink"].'
    ),
    "page_parameter": _line("Parameter that asks for a page", "For its number, offset or cursor, such as page."),
    "first_page": _number("first_page", "Number of the first page"),
    "size_parameter": _line("Parameter of the page size", "Such as per_page. Empty: it is not asked for."),
    "page_size": _number("page_size", "Items on a page"),
    "since_path": _line(
        "Only what is new: by which value",
        "Where an item has a value that grows, such as updated_at or id. After a run the highest is remembered, and "
        "the next run gets only what is newer; so give each workflow an audience of its own. Empty: everything, each "
        "time.",
    ),
    "since_type": _choice("Type of that value", _GROWING),
    "since_parameter": _line("Parameter that asks for newer items", "Such as updated_since."),
    "timeout_seconds": _number("timeout_seconds", "Seconds for one page"),
    "attempts": _number("attempts", "Tries for one page"),
    "total_minutes": _number("total_minutes", "Minutes for all pages"),
    "max_pages": _number("max_pages", "Most pages"),
    "max_page_octets": _number("max_page_octets", "Most octets of a page"),
}
_CREDENTIAL_FIELD = forms.CharField(
    label="Token, key or password",
    required=False,
    max_length=4000,
    help_text="Kept encrypted, and never shown again.",
    widget=UnfoldAdminPasswordWidget({"autocomplete": "new-password"}, render_value=False),
)


def _placed() -> list[str]:
    names = list(SETTINGS)
    names.insert(names.index("key_name") + 1, CREDENTIAL)
    return [HTTP + name for name in names]


NAMES = _placed()


def _shown_when() -> dict[str, str]:
    """Alpine's conditions, by field."""

    def among(name: str, *values: str) -> str:
        return " && ".join(["kind == 'http'", "(" + " || ".join(f"{HTTP}{name} == '{each}'" for each in values) + ")"])

    counted = (Style.PAGE.value, Style.OFFSET.value, Style.CURSOR.value)
    special = {
        "username": among("auth", "basic"),
        "key_name": among("auth", "header", "query"),
        CREDENTIAL: among("auth", *(way for way in AUTH if way != "none")),
        "next_path": among("paging", Style.LINK_BODY.value, Style.CURSOR.value),
        "page_parameter": among("paging", *counted),
        "first_page": among("paging", Style.PAGE.value),
        "size_parameter": among("paging", *counted),
        "page_size": among("paging", *counted),
    }
    return {name: special.get(name.removeprefix(HTTP), "kind == 'http'") for name in NAMES}


CONDITIONS = _shown_when()


_Declared = type(
    "_Declared",
    (forms.Form,),
    {HTTP + name: field for name, field in (SETTINGS | {CREDENTIAL: _CREDENTIAL_FIELD}).items()},
)


class HttpFields(_Declared):
    """Mixed into the form of an audience, which calls `begin_http` and `clean_http`."""

    def begin_http(self) -> None:
        """Shows what is stored, and not the credential."""
        options = self.instance.options if isinstance(self.instance.options, dict) else {}
        self.initial |= {HTTP + name: options[name] for name in SETTINGS if name in options}
        self._url_before = str(options.get("url") or "")
        try:
            self._stored, self._unreadable = self.instance.secrets.open(), ""
        except SecretUnreadable as error:
            self._stored, self._unreadable = {}, str(error)
        field = self.fields.get(HTTP + CREDENTIAL)
        if field is not None and self._unreadable:
            field.help_text = "What is stored cannot be decrypted: enter it again."
        elif field is not None and CREDENTIAL in self._stored:
            field.help_text = "Stored, and not shown. Empty: keep it. Without authentication it is forgotten."

    def clean_http(self, cleaned: dict[str, object]) -> None:
        """Puts settings and credential on the instance, where `Audience.clean` judges them."""
        if cleaned.get("kind") != AudienceKind.HTTP:
            return
        given = {name: cleaned.get(HTTP + name) for name in SETTINGS}
        self.instance.options = {name: value for name, value in given.items() if value not in ("", None)}
        try:
            self.instance.secrets = Sealed.seal(self._secrets_now(cleaned))
        except SecretUnreadable as error:
            self.add_error(HTTP + CREDENTIAL, str(error))

    def _secrets_now(self, cleaned: dict[str, object]) -> dict[str, str]:
        entered = cleaned.get(HTTP + CREDENTIAL)
        if (cleaned.get(HTTP + "auth") or "none") == "none":
            return {}
        if entered:
            return {CREDENTIAL: str(entered)}
        # Who may set the URL is not thereby told the credential that somebody else has entered.
        if self._stored and leads_elsewhere(self._url_before, str(cleaned.get(HTTP + "url") or "")):
            self.add_error(HTTP + CREDENTIAL, ELSEWHERE)
            return {}
        return dict(self._stored)

    def want_secrets_again(self) -> None:
        """For a form that is shown again: what was entered as a credential is not, and would be lost without a word."""
        if self.data.get(self.add_prefix(HTTP + CREDENTIAL)):
            self.add_error(HTTP + CREDENTIAL, ENTER_AGAIN)

    def _update_errors(self, errors: ValidationError) -> None:
        """Brings what `Audience.clean` says of the options to the fields in which they are entered."""
        found = getattr(errors, "error_dict", {}).pop("options", [])
        for problem in found:
            name = HTTP + str(problem.code)
            words = problem.message.removeprefix(f"{problem.code}: ")
            if name not in self.errors:  # where the field has its own objection, that came first
                self.add_error(name if name in self.fields else None, words)
        if not found or errors.error_dict:
            super()._update_errors(errors)
