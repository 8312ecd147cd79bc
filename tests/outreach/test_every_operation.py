"""Who may use each operation of the API, whichever there are: nobody unknown, no token without the scope, nobody
without the right."""

import pytest
from django.contrib.auth.models import Permission, User
from rest_framework.test import APIClient

from delivery.scopes import READ, scope_of
from outreach.models import SCOPES
from tests.outreach.access import bearer, token
from tests.outreach.api_routes import Operation, operations
from tests.problems import document

pytestmark = pytest.mark.django_db

REFUSED = (401, 403)
PUBLIC = ("/api/v1/schema/", "/api/v1/docs/")  # they say what Outreach can do, and nothing of this installation


def asked(client: APIClient, operation: Operation) -> tuple[int, dict]:
    # The client's own methods would test what raised; here an answer is wanted.
    answer = client.generic(operation.method.upper(), operation.url, b"{}", content_type="application/json")
    return answer.status_code, document(answer) if answer.status_code in REFUSED else {}


def scopes_for(operation: Operation) -> set[str]:
    """The scopes of which a token needs one."""
    (permission,) = operation.permissions
    return {READ} if operation.reads else {scope_of(each) for each in permission.needed_to_act}


def rights_for(operation: Operation) -> tuple[str, ...]:
    """The permissions of which a user needs one."""
    (permission,) = operation.permissions
    return (permission.needed_to_see,) if operation.reads else permission.needed_to_act


def with_rights(name: str, rights: tuple[str, ...]) -> User:
    user = User.objects.create(username=name)
    for right in rights:
        app, codename = right.split(".")
        user.user_permissions.add(Permission.objects.get(content_type__app_label=app, codename=codename))
    return user


def test_there_are_operations_to_ask_about():
    found = {str(each) for each in operations()}

    assert {"POST /api/v1/trigger", "POST /api/v1/messages/", "GET /api/v1/audit/"} <= found
    assert len(found) > 40


def test_every_operation_says_whom_it_is_for():
    """By `allowed`, so that no view is open because somebody forgot."""
    silent = [str(each) for each in operations() if [type(one).__name__ for one in each.permissions] != ["Allowed"]]

    assert silent == []


def test_nobody_unknown_gets_any_answer():
    answers = {str(each): asked(APIClient(raise_request_exception=False), each)[0] for each in operations()}

    assert {name: status for name, status in answers.items() if status not in REFUSED} == {}


@pytest.mark.parametrize("url", PUBLIC)
def test_what_anybody_may_read_is_the_document_of_the_api_and_its_page(url):
    assert APIClient().get(url).status_code == 200


@pytest.mark.parametrize("scope", SCOPES)
def test_a_token_opens_what_it_has_the_scope_for_and_nothing_else_whoever_its_user_is(scope):
    program = bearer(token(User.objects.create(username="root", is_superuser=True), scope).text)

    wrong = []
    for operation in operations():
        status, problem = asked(program, operation)
        lacks = status == 403 and "lacks the scope" in problem["detail"]
        if lacks == (scope in scopes_for(operation)):
            wrong.append(f"{operation}: {status}")

    assert wrong == []


def test_a_token_opens_nothing_that_its_user_may_not():
    others = list(Permission.objects.select_related("content_type"))

    wrong = []
    for number, operation in enumerate(operations()):
        user = User.objects.create(username=f"user-{number}")
        mine = rights_for(operation)
        user.user_permissions.set(
            each for each in others if f"{each.content_type.app_label}.{each.codename}" not in mine
        )
        if asked(bearer(token(user).text), operation)[0] != 403:
            wrong.append(str(operation))

    assert wrong == []


def test_the_right_for_an_operation_and_its_scope_are_enough_to_come_in():
    wrong = []
    for number, operation in enumerate(operations()):
        for right in rights_for(operation):
            user = with_rights(f"{number}-{right}", (right,))
            scope = READ if operation.reads else scope_of(right)
            status, problem = asked(bearer(token(user, scope).text), operation)
            if status in REFUSED:
                wrong.append(f"{operation} with {right}, {scope}: {problem['detail']}")

    assert wrong == []
