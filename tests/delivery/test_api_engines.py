"""Engines over the API: set up, changed and deleted, their credentials in and never out, and what is known of them."""

import logging
from dataclasses import replace

import pytest
from rest_framework.test import APIClient

from delivery.core.breaker import State
from delivery.engine_settings import ELSEWHERE
from delivery.engines import KINDS
from delivery.models import Bucket, Engine, EngineEvent, EngineLimit, Pool, PoolMember
from delivery.secrets import Sealed
from delivery.shared import shared
from tests.campaigns.clients import client
from tests.problems import detail, errors

pytestmark = pytest.mark.django_db

ENGINES = "/api/v1/engines/"
SECRET = "correct/horse/battery/staple/0123456789A"  # 40 characters, as a secret access key of AWS has
SMTP = {"host": "smtp.example.com", "username": "mailer"}
BODY = '{"to": "{{ to.address }}"}'
ALL = [f"{deed}_engine" for deed in ("view", "add", "change", "delete")]

# What an engine of each kind needs, and the names of its credentials.
SETTINGS: dict[str, tuple[dict[str, object], list[str]]] = {
    "smtp": (SMTP, ["password"]),
    "ses": (
        {"region": "eu-west-1", "access_key_id": "ASIAIOSFODNN7EXAMPLE"},
        ["secret_access_key", "session_token"],
    ),
    "sendgrid": ({"region": "global"}, ["api_key"]),
    "mailgun": ({"region": "us", "domain": "mg.shop.example"}, ["api_key"]),
    "postmark": ({"stream": "broadcast"}, ["token"]),
    "resend": ({}, ["api_key"]),
    "brevo": ({}, ["api_key"]),
    "http": ({"url": "https://api.example/v1/mails", "body": BODY, "auth": "bearer"}, ["credential", "secret"]),
    "django": ({}, []),
    "sandbox": ({}, []),
    "scripted": ({"script": "vendor:latency=1ms"}, []),
    "openai": ({"model": "small"}, ["credential"]),
    "mock_composer": ({}, []),
}


@pytest.fixture
def editor() -> APIClient:
    return client("editor", *ALL)


def settings_of(kind: str) -> tuple[dict[str, object], dict[str, str]]:
    options, names = SETTINGS[kind]
    if kind == "django":
        options = {"backend": KINDS["django"].fields()["backend"].choices[0][0]}
    prefix = {"sendgrid": "SG.", "resend": "re_", "brevo": "xkeysib-"}.get(kind, "")
    return options, dict.fromkeys(names, prefix + SECRET)


def made(who: APIClient, kind: str = "smtp", **changes: object) -> Engine:
    options, credentials = settings_of(kind)
    body = {"name": kind, "slug": kind, "kind": kind, "options": options, "credentials": credentials} | changes
    answer = who.post(ENGINES, body, format="json")
    assert answer.status_code == 201, answer.content
    return Engine.objects.get(pk=answer.json()["id"])


def patch(who: APIClient, engine: Engine, **body: object):
    return who.patch(f"{ENGINES}{engine.slug}/", body, format="json")


# ---- setting up ----


def test_an_engine_is_made_with_its_limits_and_shown_as_it_is(editor):
    answer = editor.post(
        ENGINES,
        {
            "name": "Relay",
            "slug": "relay",
            "kind": "smtp",
            "options": SMTP,
            "credentials": {"password": SECRET},
            "sender_domains": ["Shop.example", "news.example"],
            "limits": [{"quantity": 20, "period": "second"}, {"quantity": 9, "period": "day", "counts": "calls"}],
        },
        format="json",
    )

    shown = answer.json()
    assert answer.status_code == 201
    assert shown["options"] == SMTP | {
        "port": 587,
        "security": "starttls",
        "max_connections": 10,
        "max_messages_per_connection": 100,
    }
    assert (shown["stored_credentials"], shown["sender_domains"]) == (["password"], ["news.example", "shop.example"])
    assert [(each["quantity"], each["counts"], each["period"], each["burst"]) for each in shown["limits"]] == [
        (20, "messages", "second", None),
        (9, "calls", "day", None),
    ]
    assert Engine.objects.get().secrets.open() == {"password": SECRET}
    assert list(EngineEvent.objects.values_list("what", "by")) == [("added", "editor")]
    assert editor.get(f"{ENGINES}relay/").json() == shown == editor.get(f"{ENGINES}{shown['id']}/").json()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_set_up_and_shows_no_credential_anywhere(kind, editor, caplog):
    caplog.set_level(logging.DEBUG)
    options, credentials = settings_of(kind)
    engine = made(editor, kind)
    spoilt = {name: f"{value}\0" for name, value in credentials.items()} or {"none": SECRET}
    answers = [
        editor.get(f"{ENGINES}{kind}/"),
        editor.get(ENGINES),
        patch(editor, engine, name="Another", credentials=credentials),
        patch(editor, engine, credentials=spoilt),
        patch(editor, engine, options=options | credentials),
        patch(editor, engine, options=options, credentials=credentials | {"misspelt": SECRET}),
        patch(editor, engine, credentials=[SECRET]),
        patch(editor, engine, credentials={name: [SECRET] for name in credentials} or SECRET),
        editor.get(f"{ENGINES}{kind}/state/"),
        editor.get(f"{ENGINES}{kind}/events/"),
        editor.get(f"/api/v1/engine-kinds/{kind}/"),
        editor.delete(f"{ENGINES}{kind}/"),
    ]

    statuses = [answer.status_code for answer in answers]
    assert statuses[:4] == [200, 200, 200, 400]
    assert statuses[5:] == [400, 400, 400, 200, 200, 200, 204]
    assert not any(SECRET in answer.content.decode() for answer in answers)
    assert not any(engine.secrets.token and engine.secrets.token in answer.content.decode() for answer in answers)
    assert SECRET not in caplog.text


def test_the_settings_of_these_tests_name_every_kind_and_all_of_its_credentials():
    assert {kind: set(names) for kind, (_, names) in SETTINGS.items()} == {
        slug: set(kind.secret_fields) for slug, kind in KINDS.items()
    }


def test_what_somebody_put_into_an_option_is_hidden_and_stays_when_it_comes_back_as_it_was_shown(editor):
    engine = made(editor, "http")
    headers = f"X-Api-Key: {SECRET}\nX-Team: shop"
    patch(editor, engine, options=settings_of("http")[0] | {"headers": headers})

    shown = editor.get(f"{ENGINES}http/").json()["options"]
    patch(editor, engine, options=shown | {"method": "PUT"})
    spoilt = patch(editor, engine, options=shown | {"headers": shown["headers"] + "!"})

    assert shown["headers"] == "X-Api-Key: ***\nX-Team: shop"
    engine.refresh_from_db()
    assert (engine.options["headers"], engine.options["method"]) == (headers, "PUT")
    assert errors(spoilt)["options/headers"][0].startswith("*** stands for what is not shown")


# ---- credentials ----


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ({"name": "Other"}, {"password": SECRET}),
        ({"options": SMTP | {"port": 2525}}, {"password": SECRET}),
        ({"credentials": {}}, {"password": SECRET}),
        ({"credentials": {"password": "new"}}, {"password": "new"}),
        ({"options": SMTP | {"host": "other.example"}, "credentials": {"password": "new"}}, {"password": "new"}),
        ({"options": {"host": "smtp.example.com"}}, {}),
        ({"options": {"host": "smtp.example.com"}, "credentials": {"password": None}}, {}),
    ],
)
def test_a_credential_is_kept_replaced_or_forgotten_when_nothing_uses_it(change, left, editor):
    engine = made(editor)

    answer = patch(editor, engine, **change)

    assert answer.status_code == 200, answer.content
    assert Engine.objects.get().secrets.open() == left
    assert answer.json()["stored_credentials"] == list(left)


@pytest.mark.parametrize(
    ("kind", "change", "name"),
    [
        ("smtp", {"host": "evil.example"}, "password"),
        ("sendgrid", {"endpoint": "https://evil.example"}, "api_key"),
        ("ses", {"endpoint": "https://evil.example"}, "secret_access_key"),
        ("mailgun", {"endpoint": "https://evil.example"}, "api_key"),
        ("postmark", {"endpoint": "https://evil.example"}, "token"),
        ("resend", {"endpoint": "https://evil.example"}, "api_key"),
        ("brevo", {"endpoint": "https://evil.example"}, "api_key"),
        ("http", {"url": "https://api.example.evil.example/v1/mails"}, "credential"),
        ("http", {"url": "https://api.example:8443/v1/mails"}, "secret"),
        ("openai", {"base_url": "https://evil.example/v1"}, "credential"),
    ],
)
def test_a_stored_credential_does_not_go_to_whom_the_options_now_lead(kind, change, name, editor):
    engine = made(editor, kind)
    options, credentials = settings_of(kind)

    refused = patch(editor, engine, options=options | change)
    before = Engine.objects.get().options
    entered = patch(editor, engine, options=options | change, credentials=credentials)

    assert errors(refused)[f"credentials/{name}"] == [ELSEWHERE]
    assert before == engine.options
    assert entered.status_code == 200, entered.content


def test_every_credential_of_every_kind_has_a_place_to_go_to():
    for slug, kind in KINDS.items():
        options, _ = SETTINGS[slug]
        assert set(kind.uses(options)) == kind.secret_fields, slug


def test_an_engine_whose_credentials_no_key_opens_is_shown_switched_off_and_entered_again(editor):
    engine = made(editor)
    Engine.objects.update(secrets=Sealed("what no key made"))

    shown = editor.get(f"{ENGINES}smtp/").json()
    off = patch(editor, engine, enabled=False)
    kept = patch(editor, engine, options=SMTP)
    entered = patch(editor, engine, credentials={"password": "new"})

    assert (shown["stored_credentials"], off.status_code, off.json()["enabled"]) == (None, 200, False)
    assert errors(kept)["credentials/password"][0].startswith("The stored credentials cannot be decrypted")
    assert (entered.status_code, Engine.objects.get().secrets.open()) == (200, {"password": "new"})


# ---- what is refused ----


@pytest.mark.parametrize(
    ("kind", "change", "place", "words"),
    [
        ("smtp", {"options": {"host": "a.example", "hots": "b"}}, "options/hots", "There is no such option. There is:"),
        ("smtp", {"options": {"port": 25}}, "options/host", "This option is needed."),
        ("smtp", {"options": SMTP | {"port": "25"}}, "options/port", "This is a whole number."),
        ("smtp", {"options": SMTP | {"port": True}}, "options/port", "This is a whole number."),
        ("smtp", {"options": SMTP | {"port": 99999}}, "options/port", "less than or equal to 65535"),
        ("smtp", {"options": SMTP | {"host": ["a"]}}, "options/host", "This is a text."),
        ("smtp", {"options": SMTP | {"security": "perhaps"}}, "options/security", "perhaps"),
        ("smtp", {"options": SMTP | {"password": SECRET}}, "options/password", "This is a credential"),
        ("smtp", {"options": SMTP | {"ca_file": "/etc/passwd"}}, "options/ca_file", "There is no such option."),
        ("smtp", {"options": [1]}, "options", "Expected a dictionary"),
        ("smtp", {"credentials": {"passwort": "x"}}, "credentials/passwort", "There is: password."),
        ("smtp", {"credentials": {"password": ""}}, "credentials/password", "may not be blank"),
        ("smtp", {"credentials": {"password": None}}, "options", "The password of the user"),
        ("smtp", {"kind": "ses"}, "kind", "An engine keeps its kind, smtp"),
        ("smtp", {"kind": "pigeon"}, "kind", '"pigeon" is none of smtp'),
        ("smtp", {"held": True}, "held", "This is shown and cannot be set."),
        ("smtp", {"limit": []}, "limit", "There is no such field."),
        ("smtp", {"limits": [{"quantity": 1}, {"quantity": 0}]}, "limits/1/quantity", "greater than or equal to 1"),
        ("smtp", {"limits": [{}]}, "limits/0/quantity", "null"),
        ("smtp", {"limits": [{"quantity": 1, "id": 10**9}]}, "limits/0/id", "This engine has no such limit"),
        ("smtp", {"limits": [{"quantity": 1, "period": "week"}]}, "limits/0/period", '"week" is none of second'),
        ("smtp", {"sender_domains": ["a b"]}, "sender_domains/0", "One domain"),
        ("smtp", {"warmup_from": "2026-12-01"}, "", "A warm-up needs both"),
        ("smtp", {"warmup_from": "0001-01-01", "warmup_caps": "1"}, "warmup_from", "no first day"),
        ("smtp", {"slug": "a b"}, "slug", "slug"),
        ("ses", {"credentials": {"secret_access_key": None}}, "credentials/secret_access_key", "needed"),
        ("http", {"options": {"url": "https://a.example", "body": BODY}, "credentials": {"credential": "x"}},
         "credentials/credential", "With these settings it would not be used"),
        ("openai", {"sender_domains": ["a.example"]}, "sender_domains", "This kind writes mails and sends none"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_at_its_place_and_changes_nothing(kind, change, place, words, editor):
    engine = made(editor, kind)
    before = stored()

    answer = patch(editor, engine, **change)

    assert answer.status_code == 400, answer.content
    assert words in " ".join(errors(answer)[place])
    assert stored() == before


def stored() -> dict[str, object]:
    """The one engine, as it is in the database."""
    values = Engine.objects.values().get()
    return values | {"secrets": values["secrets"].token}


def test_a_name_that_another_engine_has_is_refused(editor):
    made(editor)

    answer = editor.post(ENGINES, {"name": "smtp", "slug": "smtp", "kind": "sandbox"}, format="json")

    assert sorted(errors(answer)) == ["name", "slug"]


# ---- limits ----


def test_a_limit_that_is_changed_goes_on_where_it_was(editor):
    engine = made(editor, limits=[{"quantity": 20, "period": "second"}, {"quantity": 9, "period": "day"}])
    second, _ = engine.limits.order_by("pk")
    Bucket.objects.create(key=second.bucket_key, state=7)

    patch(editor, engine, limits=[{"quantity": 5, "period": "second"}, {"quantity": 1, "period": "hour"}])
    named = [{"id": second.pk, "quantity": 6, "period": "minute", "counts": "calls", "burst": 2}]
    answer = patch(editor, engine, limits=named)

    assert answer.json()["limits"] == named
    assert [each.pk for each in EngineLimit.objects.all()] == [second.pk]
    assert EngineEvent.objects.filter(what__startswith="limit: ").count() == 5


def test_limits_that_are_not_given_stay(editor):
    engine = made(editor, limits=[{"quantity": 20, "period": "second"}])

    patch(editor, engine, name="Other")

    assert engine.limits.count() == 1


# ---- deleting ----


def test_an_engine_of_a_pool_is_not_deleted_and_another_is(editor):
    engine = made(editor)
    pool = Pool.objects.create(name="Main", slug="main")
    PoolMember.objects.create(pool=pool, engine=engine)

    refused = editor.delete(f"{ENGINES}smtp/")
    PoolMember.objects.all().delete()

    assert (refused.status_code, "Main" in detail(refused)) == (409, True)
    assert editor.delete(f"{ENGINES}smtp/").status_code == 204
    assert not Engine.objects.exists()


# ---- what is known of it ----


def test_the_state_is_what_the_workers_know_and_what_the_limits_allow_now(editor):
    engine = made(editor, "sandbox", limits=[{"quantity": 1, "period": "hour", "burst": 10}])
    limit = engine.limits.get()
    shared().draw({limit.bucket_key: limit.rate.guarded()}, 4)
    shared().change(engine.pk, lambda condition, at: replace(condition, last_error="password=hunter22", pace=1.0))

    state = editor.get(f"{ENGINES}sandbox/state/").json()

    full = limit.rate.guarded().burst
    assert state["levels"] == [{"limit": limit.pk, "counts": "messages", "tokens": full - 4}]
    assert (state["circuit"], state["last_error"], state["pace"], state["held"]) == (
        State.CLOSED,
        "password=***",
        1.0,
        False,
    )


def test_what_people_did_to_an_engine_is_told_the_last_thing_first(editor):
    engine = made(editor)
    patch(editor, engine, enabled=False)

    page = editor.get(f"{ENGINES}smtp/events/?page_size=1").json()

    assert [event["what"] for event in page["results"]] == ["switched off"]
    assert [event["what"] for event in editor.get(page["next"]).json()["results"]] == ["added"]
    assert editor.get(f"{ENGINES}nobody/events/").status_code == 404


def test_a_check_tells_what_is_wrong_without_a_mail(editor):
    made(editor, "sandbox")
    made(editor, "scripted")
    Engine.objects.filter(slug="scripted").update(options={})

    fine = editor.post(f"{ENGINES}sandbox/check/")
    broken = editor.post(f"{ENGINES}scripted/check/", {}, format="json")
    refused = editor.post(f"{ENGINES}sandbox/check/", {"save": True}, format="json")

    assert (fine.status_code, fine.json()) == (200, {"findings": []})
    (finding,) = broken.json()["findings"]
    assert (finding["certain"], bool(finding["words"])) == (True, True)
    assert list(errors(refused)) == ["save"]


def test_every_kind_says_which_options_it_has(editor):
    kinds = editor.get("/api/v1/engine-kinds/").json()

    assert [kind["slug"] for kind in kinds] == list(KINDS)
    for kind in kinds:
        fields = KINDS[kind["slug"]].fields()
        assert [option["name"] for option in kind["options"]] == list(fields)
        credentials = {option["name"] for option in kind["options"] if option["credential"]}
        assert credentials == KINDS[kind["slug"]].secret_fields
        assert all(option["default"] is None for option in kind["options"] if option["credential"])
    assert editor.get("/api/v1/engine-kinds/smtp/").json() == kinds[0]
    assert editor.get("/api/v1/engine-kinds/pigeon/").status_code == 404


# ---- lists and permissions ----


def test_a_list_of_many_asks_no_more_than_one_of_few(editor, django_assert_num_queries):
    made(editor, "sandbox", limits=[{"quantity": 1}])
    editor.get(ENGINES)
    with django_assert_num_queries(6):
        editor.get(ENGINES)
    Engine.objects.bulk_create(Engine(name=f"e{n}", slug=f"e{n}", kind="sandbox") for n in range(20))
    EngineLimit.objects.bulk_create(EngineLimit(engine=engine, quantity=1) for engine in Engine.objects.all())

    with django_assert_num_queries(6):
        answer = editor.get(ENGINES)

    assert len(answer.json()["results"]) == 21


def test_a_list_is_narrowed_searched_and_ordered(editor):
    for slug, kind in (("a-relay", "smtp"), ("b-box", "sandbox"), ("c-box", "sandbox")):
        Engine.objects.create(name=slug, slug=slug, kind=kind, enabled=slug != "c-box")

    def slugs(query: str) -> list[str]:
        return [engine["slug"] for engine in editor.get(f"{ENGINES}?{query}").json()["results"]]

    assert slugs("kind=sandbox") == ["b-box", "c-box"]
    assert slugs("enabled=false") == ["c-box"]
    assert slugs("search=box&ordering=-slug") == ["c-box", "b-box"]
    assert list(errors(editor.get(f"{ENGINES}?kinds=smtp"))) == ["kinds"]


READS = [
    ENGINES,
    f"{ENGINES}sandbox/",
    f"{ENGINES}sandbox/state/",
    f"{ENGINES}sandbox/events/",
    "/api/v1/engine-kinds/",
]
WRITES = [
    ("post", ENGINES, "add_engine"),
    ("patch", f"{ENGINES}sandbox/", "change_engine"),
    ("delete", f"{ENGINES}sandbox/", "delete_engine"),
    ("post", f"{ENGINES}sandbox/check/", "change_engine"),
    ("post", f"{ENGINES}sandbox/hold/", "change_engine"),
    ("post", f"{ENGINES}sandbox/hold/", "hold_engine"),
]


@pytest.mark.parametrize(("method", "path", "right"), WRITES)
def test_each_deed_needs_its_own_right(method, path, right, editor):
    made(editor, "sandbox")
    others = client("others", *{"view_engine", "add_engine", "change_engine", "delete_engine", "hold_engine"} - {
        right, *({"change_engine", "hold_engine"} if path.endswith("hold/") else ())
    })  # fmt: skip
    allowed, nobody = client("allowed", right), APIClient()
    body = {"why": "lunch"} if path.endswith("hold/") else {"name": "Two", "slug": "two", "kind": "sandbox"}
    body = {} if path.endswith("check/") else body

    refused = [getattr(who, method)(path, body, format="json").status_code for who in (others, nobody)]

    assert set(refused) <= {401, 403}
    assert getattr(allowed, method)(path, body, format="json").status_code in (200, 201, 204)


def test_who_may_look_at_engines_looks_and_nobody_else(editor):
    made(editor, "sandbox")
    viewer, outsider = client("viewer", "view_engine"), client("outsider", "view_pool")

    assert [viewer.get(path).status_code for path in READS] == [200] * len(READS)
    assert [outsider.get(path).status_code for path in READS] == [403] * len(READS)
