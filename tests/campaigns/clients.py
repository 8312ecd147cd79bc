"""People and programs that use the API, as tests make them."""

from django.contrib.auth.models import Permission, User
from rest_framework.test import APIClient


def client(name: str, *permissions: str, **kwargs: object) -> APIClient:
    """Somebody who may do just this, by the code names of the permissions."""
    user = User.objects.create(username=name)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    signed_in = APIClient(**kwargs)
    signed_in.force_login(user)
    return signed_in
