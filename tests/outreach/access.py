"""Callers of the API, as the tests on access need them."""

from django.contrib.auth.models import Group, Permission, User
from rest_framework.test import APIClient

from outreach.access import tokens
from outreach.access.tokens import Made


def user(name: str, *permissions: str, role: str | None = None, **fields: object) -> User:
    """Somebody with these permissions (codenames), or with a role, who may log into the admin."""
    made = User.objects.create(username=name, is_staff=True, **fields)
    made.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    if role:
        made.groups.add(Group.objects.get(name=role))
    return made


def token(of: User, *scopes: str, **fields: object) -> Made:
    return tokens.make("shop", of, scopes or ("read", "edit", "send"), by="ada", **fields)


def bearer(text: str) -> APIClient:
    """A program that shows this token."""
    client = APIClient(raise_request_exception=False)
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {text}")
    return client


def browser(of: User, **kwargs: object) -> APIClient:
    """A person who has logged in."""
    client = APIClient(**kwargs)
    client.force_login(of)
    return client
