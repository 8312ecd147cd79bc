"""The four roles, as groups: Viewer, Editor, Sender, Admin. The right to send is apart from the right to edit.

After each migration a role gets the permissions that are meant for it and new since the last time. What it had got once
and somebody has taken away stays away; a group that was renamed is still the role; one that was deleted stays deleted.
"""

from collections.abc import Mapping

from django.apps import apps as present
from django.apps.registry import Apps
from django.db import router, transaction
from django.db.models import Model, QuerySet

VIEWER, EDITOR, SENDER, ADMIN = "Viewer", "Editor", "Sender", "Admin"
ROLES = (VIEWER, EDITOR, SENDER, ADMIN)
OURS = ("campaigns", "delivery")

# What people set up. Everything else is a record of what happened, or a part of the machinery.
SET_UP = {
    "campaigns": {
        "audience",
        "contact",
        "contactimport",
        "contactlist",
        "schedule",
        "step",
        "template",
        "templateversion",
        "upload",
        "webhook",
        "workflow",
    },
    "delivery": {"engine", "enginelimit", "pool", "poolmember", "specialrule", "suppression"},
}
# Beside campaigns.send_workflow: a hold of an engine, what was heard of a delivery, a composed text let through.
TO_SEND = {
    "campaigns.send_workflow",
    "delivery.hold_engine",
    "delivery.change_delivery",
    "delivery.change_composition",
}
PEOPLE = {"user", "group"}


def meant_for(app: str, codename: str) -> set[str]:
    """The roles that a permission is meant for."""
    deed, _, model = codename.partition("_")
    if app in OURS:
        if f"{app}.{codename}" in TO_SEND:
            return {SENDER, ADMIN}
        if deed == "view":
            return set(ROLES)
        if deed in ("add", "change", "delete") and model in SET_UP[app]:
            return {EDITOR, ADMIN}
        return {ADMIN}
    if app == "outreach" or (app == "auth" and model in PEOPLE) or (app == "django_q" and deed == "view"):
        return {ADMIN}
    return set()


def complete_roles(*, using: str, apps: Apps = present, **kwargs: object) -> None:
    """Receiver of `post_migrate`, when the permissions are there. Knows the models as they are at that migration; a
    flush, which sends that signal too, does not say and means those of now."""
    try:
        role_model, group_model = apps.get_model("outreach", "Role"), apps.get_model("auth", "Group")
        permission_model = apps.get_model("auth", "Permission")
    except LookupError:
        return
    if not router.allow_migrate_model(using, role_model):
        return
    meant = _meant(permission_model.objects.using(using))
    with transaction.atomic(using=using):
        known = {role.name: role for role in role_model.objects.using(using).select_for_update()}
        roles, groups = role_model.objects.using(using), group_model.objects.using(using)
        for name, permissions in meant.items():
            _complete(known.get(name), name, permissions, roles, groups)


def _meant(permissions: QuerySet) -> dict[str, dict[str, int]]:
    """Of each role the ids of its permissions, by app.codename."""
    found: dict[str, dict[str, int]] = {name: {} for name in ROLES}
    for pk, app, codename in permissions.values_list("pk", "content_type__app_label", "codename"):
        for name in meant_for(app, codename):
            found[name][f"{app}.{codename}"] = pk
    return found


def _complete(role: Model | None, name: str, permissions: Mapping[str, int], roles: QuerySet, groups: QuerySet) -> None:
    """Makes the role if it was never made, and gives it what is new."""
    if role is None:
        # A group of this name that was there before is somebody's own, and gets what the role is.
        group, _ = groups.get_or_create(name=name)
        role = roles.create(name=name, group=group, given=[])
    new = sorted(set(permissions) - set(role.given))
    if new and role.group_id is not None:
        role.group.permissions.add(*(permissions[each] for each in new))
        roles.filter(pk=name).update(given=sorted({*role.given, *new}))
