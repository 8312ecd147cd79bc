"""How the admin looks: its title, its menu, its style sheet. Settings of django-unfold, imported by `settings`."""

from collections.abc import Callable

from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse, reverse_lazy


def _may_view(app: str, model: str) -> Callable[[HttpRequest], bool]:
    return lambda request: request.user.has_perm(f"{app}.view_{model}")


def _item(title: str, icon: str, app: str, model: str) -> dict[str, object]:
    return {
        "title": title,
        "icon": icon,
        "link": reverse_lazy(f"admin:{app}_{model}_changelist"),
        "permission": _may_view(app, model),
    }


def _at_deliveries(request: HttpRequest) -> bool:
    return request.path.startswith(reverse("admin:delivery_delivery_changelist"))


def _at_dead_letters(request: HttpRequest) -> bool:
    return _at_deliveries(request) and request.GET.get("state__exact") == "dead"


UNFOLD = {
    "SITE_TITLE": "Outreach",
    "SITE_HEADER": "Outreach",
    "SITE_SUBHEADER": "Everyone accounted for",
    "SITE_SYMBOL": "outgoing_mail",
    "SHOW_VIEW_ON_SITE": False,
    "DASHBOARD_CALLBACK": "campaigns.admin.dashboard.dashboard",
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("outreach/favicon.svg")},
    ],
    "STYLES": [lambda request: static("outreach/admin.css")],
    "SIDEBAR": {
        "show_search": False,
        "show_all_applications": False,
        "navigation": [
            {
                "items": [{"title": "Overview", "icon": "dashboard", "link": reverse_lazy("admin:index")}],
            },
            {
                "title": "Campaigns",
                "separator": True,
                "items": [
                    _item("Workflows", "account_tree", "campaigns", "workflow"),
                    _item("Schedules", "event_repeat", "campaigns", "schedule"),
                    _item("Runs", "rocket_launch", "campaigns", "run"),
                    _item("Requests", "call_received", "campaigns", "runrequest"),
                    _item("Templates", "draft", "campaigns", "template"),
                    _item("Audiences", "groups", "campaigns", "audience"),
                    _item("Contact lists", "contacts", "campaigns", "contactlist"),
                    _item("Imports", "upload", "campaigns", "contactimport"),
                ],
            },
            {
                "title": "Callbacks",
                "separator": True,
                "items": [
                    _item("Webhooks", "webhook", "campaigns", "webhook"),
                    _item("Callbacks", "outbound", "campaigns", "callback"),
                ],
            },
            {
                "title": "Delivery",
                "separator": True,
                "items": [
                    _item("Engines", "dns", "delivery", "engine"),
                    _item("Pools", "stacks", "delivery", "pool"),
                    _item("Deliveries", "mark_email_read", "delivery", "delivery")
                    | {"active": lambda request: _at_deliveries(request) and not _at_dead_letters(request)},
                    {
                        "title": "Dead letters",
                        "icon": "unsubscribe",
                        "link": lambda request: reverse("admin:delivery_delivery_changelist") + "?state__exact=dead",
                        "active": _at_dead_letters,
                        "permission": _may_view("delivery", "delivery"),
                    },
                    _item("Composed texts", "edit_note", "delivery", "composition"),
                    _item("Suppressions", "block", "delivery", "suppression"),
                    _item("Sandbox mails", "inbox", "delivery", "keptmail"),
                ],
            },
            {
                "title": "Workers",
                "separator": True,
                "items": [
                    _item("Worker clusters", "memory", "campaigns", "cluster"),
                    _item("Waiting tasks", "hourglass_top", "django_q", "ormq"),
                    _item("Failed tasks", "error", "django_q", "failure"),
                    _item("Recurring tasks", "schedule", "django_q", "schedule"),
                ],
            },
            {
                "title": "People",
                "separator": True,
                "items": [
                    _item("Users", "person", "auth", "user"),
                    _item("Groups", "group", "auth", "group"),
                    _item("API tokens", "key", "outreach", "apitoken"),
                    _item("Audit trail", "history", "outreach", "auditentry"),
                ],
            },
        ],
    },
}
