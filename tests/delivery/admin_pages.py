"""How the tests look at the admin: who is signed in, what a page says, what it asked the database."""

import html

from django.contrib.auth.models import Permission, User
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext

CONFIRMED = {"_form_submitted": "True"}  # what the dialog of an action sends
NOBODY_LISTENS = 1  # a port of loopback


def superuser() -> Client:
    return signed_in(User.objects.create(username="root", is_staff=True, is_superuser=True))


def viewer() -> Client:
    """Somebody who may look at everything, and touch nothing."""
    user = User.objects.create(username="viewer", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    return signed_in(user)


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def text_of(response: HttpResponse) -> str:
    return html.unescape(response.content.decode())


def queries_of(client: Client, url: str) -> list[str]:
    with CaptureQueriesContext(connection) as captured:
        assert client.get(url).status_code == 200
    return [query["sql"] for query in captured.captured_queries]


def shared_store_away(settings: object) -> None:
    """What workers share is in a Redis that is not there."""
    settings.OUTREACH = settings.OUTREACH | {"REDIS_URL": f"redis://127.0.0.1:{NOBODY_LISTENS}/0"}
