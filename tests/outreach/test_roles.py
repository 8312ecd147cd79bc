"""The four roles: what each may do, and that nobody gets back what an operator has taken away."""

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, Permission
from django.core.management import call_command
from django.urls import reverse

from delivery.models import Engine
from outreach.access.roles import OURS, ROLES, SET_UP, complete_roles, meant_for
from outreach.models import Role
from tests.outreach.access import browser, user

pytestmark = pytest.mark.django_db

# What happened, and parts of the machinery: shown, and changed by nobody by hand.
RECORDS = {
    "campaigns": {
        "audiencebookmark",
        "callback",
        "callbackattempt",
        "callbacksender",
        "cluster",
        "contactchange",
        "idempotencykey",
        "importchunk",
        "importproblem",
        "run",
        "runevent",
        "runproblem",
        "runrecipients",
        "runrequest",
        "scheduleevent",
        "slot",
        "uploadchunk",
        "webhookevent",
    },
    "delivery": {
        "attempt",
        "batch",
        "bucket",
        "composition",
        "counter",
        "delivery",
        "dependency",
        "engineevent",
        "enginestate",
        "event",
        "keptmail",
        "lease",
        "message",
        "poolstate",
        "tally",
    },
}


def rights(role: str) -> set[str]:
    permissions = Group.objects.get(name=role).permissions.values_list("content_type__app_label", "codename")
    return {f"{app}.{codename}" for app, codename in permissions}


def completed() -> None:
    complete_roles(apps=apps, using="default")


def test_of_every_model_it_is_said_whether_it_is_set_up_or_a_record():
    """A new one fails here, until somebody has decided whether editors change it."""
    for app in OURS:
        models = {model._meta.model_name for model in apps.get_app_config(app).get_models()}

        assert models == SET_UP[app] | RECORDS[app]
        assert SET_UP[app] & RECORDS[app] == set()


def test_a_viewer_sees_everything_and_changes_nothing():
    models = [model._meta for app in OURS for model in apps.get_app_config(app).get_models()]

    assert rights("Viewer") == {f"{each.app_label}.view_{each.model_name}" for each in models}


def test_an_editor_sets_up_and_sends_nothing():
    mine = rights("Editor") - rights("Viewer")

    assert mine == {
        f"{app}.{deed}_{model}" for app in OURS for model in SET_UP[app] for deed in ("add", "change", "delete")
    }
    assert "campaigns.send_workflow" not in mine


def test_a_sender_sends_and_sets_up_nothing():
    assert rights("Sender") - rights("Viewer") == {
        "campaigns.send_workflow",
        "delivery.hold_engine",
        "delivery.change_delivery",
        "delivery.change_composition",
    }


def test_an_admin_may_do_what_the_others_may_and_looks_after_people_and_tokens():
    mine = rights("Admin")

    assert mine > rights("Viewer") | rights("Editor") | rights("Sender")
    assert {"outreach.add_apitoken", "outreach.view_auditentry", "auth.add_user", "auth.change_group"} <= mine
    assert not {each for each in mine if each.startswith(("sessions.", "contenttypes.", "admin."))}


def test_what_an_operator_took_away_stays_away():
    Group.objects.get(name="Sender").permissions.remove(Permission.objects.get(codename="hold_engine"))

    completed()

    assert "delivery.hold_engine" not in rights("Sender")


def test_what_an_operator_gave_stays_given():
    Group.objects.get(name="Viewer").permissions.add(Permission.objects.get(codename="send_workflow"))

    completed()

    assert "campaigns.send_workflow" in rights("Viewer")


def test_a_permission_that_is_new_is_given_to_whom_it_is_meant_for():
    """As after an upgrade that brought a model."""
    role = Role.objects.get(name="Editor")
    role.given.remove("campaigns.change_audience")
    role.save()
    role.group.permissions.remove(Permission.objects.get(codename="change_audience"))

    completed()

    assert "campaigns.change_audience" in rights("Editor")


def test_a_group_that_was_renamed_is_still_the_role_and_none_is_made_beside_it():
    Group.objects.filter(name="Viewer").update(name="Betrachter")

    completed()

    assert set(Group.objects.values_list("name", flat=True)) == {"Betrachter", "Editor", "Sender", "Admin"}


def test_a_group_that_was_deleted_stays_deleted():
    Group.objects.get(name="Sender").delete()

    completed()

    assert set(Group.objects.values_list("name", flat=True)) == set(ROLES) - {"Sender"}


def test_looking_again_when_nothing_is_new_changes_nothing(django_assert_max_num_queries):
    before = {role: rights(role) for role in ROLES}

    with django_assert_max_num_queries(5):
        completed()

    assert {role: rights(role) for role in ROLES} == before


@pytest.mark.parametrize(
    ("permission", "roles"),
    [
        ("campaigns.send_workflow", {"Sender", "Admin"}),
        ("campaigns.delete_run", {"Admin"}),
        ("campaigns.do_something_new", {"Admin"}),
        ("auth.add_permission", set()),
        ("django_q.view_ormq", {"Admin"}),
        ("django_q.add_schedule", set()),
        ("sessions.view_session", set()),
    ],
)
def test_each_permission_is_meant_for(permission, roles):
    assert meant_for(*permission.split(".")) == roles


# ---- the admin's pages ----

PAGES = {
    "campaigns_workflow": {"Viewer", "Editor", "Sender", "Admin"},
    "campaigns_run": {"Viewer", "Editor", "Sender", "Admin"},
    "delivery_engine": {"Viewer", "Editor", "Sender", "Admin"},
    "delivery_delivery": {"Viewer", "Editor", "Sender", "Admin"},
    "outreach_apitoken": {"Admin"},
    "outreach_auditentry": {"Admin"},
    "auth_user": {"Admin"},
    "auth_group": {"Admin"},
}


@pytest.mark.parametrize("role", ROLES)
def test_the_admin_shows_each_role_its_pages_and_refuses_the_others(role):
    person = browser(user("ada", role=role))

    shown = {page for page in PAGES if person.get(reverse(f"admin:{page}_changelist")).status_code == 200}

    assert shown == {page for page, roles in PAGES.items() if role in roles}


@pytest.mark.parametrize("role", ROLES)
def test_the_admin_lets_those_set_up_who_may(role):
    person = browser(user("ada", role=role))
    pages = ("campaigns_workflow", "campaigns_template", "campaigns_audience", "delivery_engine", "delivery_pool")

    statuses = {person.get(reverse(f"admin:{page}_add")).status_code for page in pages}

    assert statuses == ({200} if role in ("Editor", "Admin") else {403})


@pytest.mark.parametrize("role", ROLES)
def test_the_admin_lets_those_hold_an_engine_who_may(role):
    engine = Engine.objects.create(name="one", slug="one", kind="sandbox")
    person = browser(user("ada", role=role))

    person.post(reverse("admin:delivery_engine_hold", args=[engine.pk]), {"why": "look", "_form_submitted": "1"})

    engine.refresh_from_db()
    # Who may change an engine may switch it off, and so hold it.
    assert engine.held == (role != "Viewer")


def test_an_admin_makes_no_superuser_and_changes_none():
    root = user("root", is_superuser=True)
    eve = user("eve", role="Admin")
    person = browser(eve)
    page = reverse("admin:auth_user_change", args=[eve.pk])

    person.post(page, {"username": "eve", "is_active": "on", "is_staff": "on", "is_superuser": "on"})
    password = person.post(reverse("admin:auth_user_password_change", args=[root.pk]), {"password1": "x"})
    changed = person.post(reverse("admin:auth_user_change", args=[root.pk]), {"username": "eves"})

    eve.refresh_from_db()
    assert not eve.is_superuser
    assert (password.status_code, changed.status_code) == (403, 403)


@pytest.mark.django_db(transaction=True)
def test_roles_are_there_again_after_everything_was_deleted():
    call_command("flush", verbosity=0, interactive=False)

    assert rights("Sender") > rights("Viewer")
