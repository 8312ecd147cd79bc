"""`manage.py api_token make|list|revoke`: tokens of the API, without the admin."""

import json
from datetime import timedelta

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from delivery.management.deeds import DeedCommand, person, usable_database
from outreach.access import tokens
from outreach.models import SCOPES, ApiToken

LISTED = 20
LONGEST = 3660  # days


class Command(DeedCommand):
    help = (
        "Makes, lists and revokes tokens of the API. A new token is printed alone on standard output, once. "
        "Exit code: 0 done, 1 refused (it is revoked already), 2 usage or configuration error."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        deeds = parser.add_subparsers(dest="deed", required=True)
        make = deeds.add_parser("make", help="Make one.")
        make.add_argument("name", help="For which program, on which machine.")
        make.add_argument("--user", required=True, help="The name of the user whose rights it has, at most.")
        make.add_argument("--scopes", default="read", help=f"Of {','.join(SCOPES)}; parted by commas. Without: read.")
        make.add_argument("--days", type=int, metavar="N", help="It expires after N days. Without: never.")
        show = deeds.add_parser("list", help="List all of them.")
        show.add_argument("--json", action="store_true", help="As a JSON array.")
        revoke = deeds.add_parser("revoke", help="Revoke one for good.")
        revoke.add_argument("token", help="Its id, or how it begins (as `list` shows it).")

    def handle(self, **options: object) -> None:
        with usable_database():
            getattr(self, f"_{options['deed']}")(options)

    def _make(self, options: dict[str, object]) -> None:
        days = options["days"]
        if days is not None and not 1 <= days <= LONGEST:
            raise CommandError(f"--days must be from 1 to {LONGEST}, not {days}.", returncode=2)
        scopes = [each.strip() for each in options["scopes"].split(",") if each.strip()]
        expires_at = timezone.now() + timedelta(days=days) if days else None
        user = _user(options["user"])
        try:
            made = tokens.make(options["name"], user, scopes, by=person(), expires_at=expires_at)
        except ValidationError as refusal:
            field, words = next(iter(refusal.message_dict.items()))
            raise CommandError(f"{field}: {' '.join(words)} A good one: --scopes read,send", returncode=2) from refusal
        self.stderr.write(f"Token {made.token.pk} ({', '.join(scopes)}) of {user}. It is not shown again:")
        self.stdout.write(made.text)

    def _list(self, options: dict[str, object]) -> None:
        now = timezone.now()
        rows = [_row(token, now) for token in ApiToken.objects.select_related("user")]
        if options["json"]:
            self.stdout.write(json.dumps(rows, default=str))
            return
        for row in rows:
            used = f"{row['last_used_at']:%Y-%m-%d %H:%M}" if row["last_used_at"] else "never"
            words = (str(row["id"]), f"{row['prefix']}…", row["user"], ",".join(row["scopes"]), f"used {used}")
            self.stdout.write("  ".join((*words, row["state"], row["name"])))
        if not rows:
            self.stdout.write("There is none yet: `manage.py api_token make NAME --user USER --scopes read,send`.")

    def _revoke(self, options: dict[str, object]) -> None:
        token = _token(options["token"])
        if not tokens.revoke(token, person(), timezone.now()):
            raise CommandError(f"Token {token.pk} is revoked already, by {token.revoked_by}.", returncode=1)
        self.stdout.write(f"Token {token.pk}, {token}, is revoked: it opens nothing any more.")


def _row(token: ApiToken, now: object) -> dict[str, object]:
    shown = ("id", "name", "prefix", "scopes", "created_at", "created_by", "expires_at", "last_used_at")
    said = {field: getattr(token, field) for field in shown}
    return said | {"user": str(token.user), "state": token.why_invalid(now) or "valid"}


def _user(name: str) -> AbstractBaseUser:
    users = get_user_model().objects
    user = users.filter(username=name).first()
    if user is None:
        names = ", ".join(users.order_by("username").values_list("username", flat=True)[:LISTED])
        hint = f"There is: {names}." if names else "There is none yet: `manage.py createsuperuser`."
        raise CommandError(f"There is no user {name!r}. {hint}", returncode=2)
    return user


def _token(wanted: str) -> ApiToken:
    """By its id or its beginning. A whole token is no argument: arguments are seen by everybody on the machine."""
    if tokens.WELL_FORMED.fullmatch(wanted):
        wanted = wanted[: tokens.SHOWN]
    by_id = wanted.isascii() and wanted.isdigit() and len(wanted) <= 18
    found = list(ApiToken.objects.filter(**({"pk": wanted} if by_id else {"prefix": wanted.rstrip("….")}))[:2])
    if len(found) != 1:
        many = "More than one token begins so: name it by its id" if found else f"There is no token {wanted!r}"
        raise CommandError(f"{many}. `manage.py api_token list` shows all.", returncode=2)
    return found[0]
