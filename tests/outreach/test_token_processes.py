"""Tokens over the border of a process: made in one, used in another, revoked in a third."""

import pytest

from outreach.access import tokens
from tests.outreach.access import bearer, user

pytestmark = pytest.mark.django_db(transaction=True)

TRAIL = "/api/v1/audit/"


def test_a_token_that_another_process_made_opens_and_one_that_it_revoked_opens_nothing_from_then_on(manage):
    user("ada", "view_auditentry")
    made = manage("api_token", "make", "shop", "--user", "ada")
    program = bearer(made.stdout.strip())
    before = program.get(TRAIL).status_code

    revoked = manage("api_token", "revoke", made.stdout[: tokens.SHOWN])

    assert (made.returncode, revoked.returncode) == (0, 0), made.stderr + revoked.stderr
    assert (before, program.get(TRAIL).status_code) == (200, 401)
    assert made.stdout.strip() not in made.stderr + revoked.stdout + revoked.stderr
