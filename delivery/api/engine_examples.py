"""Examples of the API's engines, for its document. Every credential in them is a word that is none."""

from drf_spectacular.utils import OpenApiExample

SMTP = OpenApiExample(
    "An SMTP server",
    {
        "name": "Relay",
        "slug": "relay",
        "kind": "smtp",
        "options": {"host": "smtp.example.com", "port": 587, "security": "starttls", "username": "mailer"},
        "credentials": {"password": "<the password>"},
        "sender_domains": ["shop.example"],
        "limits": [{"quantity": 20, "counts": "messages", "period": "second", "burst": 40}],
    },
    request_only=True,
)
SES = OpenApiExample(
    "Amazon SES",
    {
        "name": "SES",
        "slug": "ses",
        "kind": "ses",
        "options": {"region": "eu-west-1", "access_key_id": "<the id of the access key>"},
        "credentials": {"secret_access_key": "<the secret access key>"},
        "warmup_from": "2026-12-01",
        "warmup_caps": "150, 250, 400, 700, 1000",
    },
    request_only=True,
)
PATCH = OpenApiExample("A slower one", {"limits": [{"quantity": 5, "period": "second"}]}, request_only=True)
HOLD = OpenApiExample("For half an hour", {"why": "the provider has an incident", "minutes": 30}, request_only=True)
RELEASE = OpenApiExample("It is over", {"why": "the incident is over"}, request_only=True)
NOTHING = OpenApiExample("Nothing", {}, request_only=True)
CHECKED = OpenApiExample(
    "A sender that is not verified",
    {"findings": [{"words": "Postmark has not verified shop.example.", "certain": True}]},
    response_only=True,
)
STATE = OpenApiExample(
    "Told to slow down",
    {
        "circuit": "closed",
        "faults_in_a_row": 0,
        "probe_at": None,
        "pace": 0.5,
        "pace_changed_at": "2026-12-24T09:00:00Z",
        "paused_until": None,
        "held": False,
        "held_until": None,
        "enabled": True,
        "last_error": "429 Too many requests",
        "last_error_at": "2026-12-24T09:00:00Z",
        "levels": [{"limit": 3, "counts": "messages", "tokens": 12}],
    },
    response_only=True,
)
