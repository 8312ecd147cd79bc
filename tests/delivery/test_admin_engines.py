"""Engines in the admin: secrets go in and never out, the provider is asked before anything is saved, and what the
workers know is shown, or that nobody can tell."""

import re
from datetime import UTC, date, datetime, timedelta
from ipaddress import ip_network

import pytest
from django.core.exceptions import ValidationError
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.utils.timezone import localdate, now

from delivery.admin.engine_words import limit_means, next_probe, warmup_means
from delivery.core.breaker import Breaker, State
from delivery.core.condition import Condition
from delivery.core.warmup import Ramp
from delivery.engines import KINDS
from delivery.models import Bucket, Engine, EngineLimit
from delivery.secrets import Sealed
from delivery.shared import shared
from tests.delivery import admin_pages, postmark_server, smtp_server
from tests.delivery.admin_pages import CONFIRMED, NOBODY_LISTENS, queries_of, shared_store_away, superuser, text_of
from tests.delivery.postmark_server import TOKEN

PASSWORD = "correct-horse-battery"
WRONG = "a-token-of-somebody-else"
ENGINES = "/admin/delivery/engine/"
NO_LIMITS = {"limits-TOTAL_FORMS": 0, "limits-INITIAL_FORMS": 0}
COMMON = {"enabled": "on", "fault_threshold": 5, "cool_off_seconds": 15, "warmup_growth": 1.4, **NO_LIMITS}
# Nobody listens there, so these settings are in doubt, and never wrong for certain.
SETTINGS = COMMON | {
    "name": "Relay",
    "slug": "relay",
    "option_host": "127.0.0.1",
    "option_port": NOBODY_LISTENS,
    "option_security": "none",
    "option_username": "mailer",
    "option_password": "",
    "option_max_connections": 5,
    "option_max_messages_per_connection": 100,
    "option_helo_name": "",
}


@pytest.fixture
def root(db) -> Client:
    return superuser()


@pytest.fixture
def viewer(db) -> Client:
    return admin_pages.viewer()


def smtp_engine(**options: object) -> Engine:
    return Engine.objects.create(
        name="Relay",
        slug="relay",
        kind="smtp",
        options={"host": "127.0.0.1", "port": NOBODY_LISTENS, "security": "none", "username": "mailer"} | options,
        secrets=Sealed.seal({"password": PASSWORD}),
    )


def page_of(engine: Engine) -> str:
    return f"{ENGINES}{engine.pk}/change/"


def change(client: Client, engine: Engine, **values: object) -> HttpResponse:
    return client.post(page_of(engine), SETTINGS | values)


def said(client: Client, response: HttpResponse) -> str:
    """The page that a saved form or an action leads to."""
    return text_of(client.get(response.headers["Location"]))


# ---- kinds and settings ----


def test_the_kind_of_a_new_engine_is_chosen_first_by_what_each_is_good_for(root):
    page = text_of(root.get(f"{ENGINES}add/"))

    assert [kind for kind in KINDS if f"?kind={kind}" in page] == list(KINDS)
    assert [kind.slug for kind in KINDS.values() if kind.label not in page or kind.hint not in page] == []


def test_an_added_engine_keeps_its_options_in_the_open_and_its_password_sealed(root):
    response = root.post(f"{ENGINES}add/?kind=smtp", SETTINGS | {"option_password": PASSWORD})

    engine = Engine.objects.get()
    assert response.status_code == 302
    assert (engine.kind, engine.options["host"], engine.options["max_connections"]) == ("smtp", "127.0.0.1", 5)
    assert "password" not in engine.options
    assert PASSWORD not in engine.secrets.token
    assert engine.secrets.open() == {"password": PASSWORD}


def test_a_password_is_in_no_response_and_in_no_history(root):
    engine = smtp_engine()
    answers = [
        root.get(page_of(engine)),
        change(root, engine, option_password="another-password", option_port=99999),  # refused, and shown again
        change(root, engine, option_password="another-password"),
        root.get(page_of(engine)),
        root.get(f"{ENGINES}{engine.pk}/history/"),
        root.post(f"{ENGINES}{engine.pk}/check/", CONFIRMED, follow=True),
        root.get(ENGINES),
        root.get("/admin/"),
    ]

    assert [answer.status_code for answer in answers] == [200, 200, 302, 200, 200, 200, 200, 200]
    assert Engine.objects.get(pk=engine.pk).secrets.open() == {"password": "another-password"}
    for answer in answers:
        assert PASSWORD not in text_of(answer)
        assert "another-password" not in text_of(answer)
        assert engine.secrets.token not in text_of(answer)


@pytest.mark.parametrize(
    ("entered", "stored"),
    [
        ({"option_password": ""}, {"password": PASSWORD}),
        ({"option_password": "new"}, {"password": "new"}),
        ({"option_password": "", "clear_password": "on", "option_username": ""}, {}),
        ({"option_password": "new", "clear_password": "on"}, {"password": "new"}),
    ],
)
def test_an_empty_password_keeps_the_stored_one_and_the_box_forgets_it(entered, stored, root):
    engine = smtp_engine()

    response = change(root, engine, **entered)

    assert response.status_code == 302
    assert Engine.objects.get().secrets.open() == stored


@pytest.mark.parametrize("wrong", [{"option_port": 99999}, {"limits-TOTAL_FORMS": 1, "limits-0-quantity": "many"}])
def test_a_secret_in_a_refused_form_is_asked_for_again_because_it_is_not_sent_back(wrong, root):
    page = text_of(root.post(f"{ENGINES}add/?kind=smtp", SETTINGS | {"option_password": PASSWORD} | wrong))

    assert "Enter it again" in page
    assert not Engine.objects.exists()


def test_settings_that_cannot_work_are_refused_with_the_kinds_own_sentence(root):
    engine = smtp_engine()

    page = text_of(change(root, engine, option_password="", clear_password="on"))

    assert "The password of the user “mailer” is missing." in page
    assert Engine.objects.get().secrets.open() == {"password": PASSWORD}


def test_options_that_the_form_does_not_know_survive_it(root):
    engine = smtp_engine(ca_file="")

    change(root, engine, option_host="localhost", option_password=PASSWORD)

    assert Engine.objects.get().options | {"host": "localhost", "ca_file": ""} == Engine.objects.get().options


def test_a_stored_password_does_not_go_to_another_host_unless_it_is_entered_for_it(root):
    engine = smtp_engine()

    page = text_of(change(root, engine, option_host="localhost"))

    assert "The settings lead elsewhere now: enter it again" in page
    assert Engine.objects.get().options["host"] == "127.0.0.1"


def test_a_password_that_nothing_uses_any_more_is_forgotten(root):
    engine = smtp_engine()

    change(root, engine, option_username="")

    assert (Engine.objects.get().options.get("username"), Engine.objects.get().secrets.open()) == (None, {})


def test_a_password_that_no_key_opens_must_be_entered_again(root, settings):
    engine = smtp_engine()
    settings.OUTREACH = settings.OUTREACH | {"SECRET_KEYS": ["8Yl2dAA9rGPTOEHcFzq4TnfnKmVcAHlF2BmBkG0s4Yk="]}

    shown = root.get(page_of(engine))
    kept = change(root, engine)
    entered = change(root, engine, option_password="new")

    assert "cannot be decrypted" in text_of(shown)
    assert "cannot be decrypted" in text_of(kept)
    assert entered.status_code == 302
    assert Engine.objects.get().secrets.open() == {"password": "new"}


def test_breaker_warm_up_and_limits_are_stored_as_they_were_entered(root):
    engine = smtp_engine()
    limit = {"quantity": 45_000, "counts": "calls", "period": "day", "burst": 5_000}
    warmup = {"warmup_from": "2026-11-20", "warmup_caps": "150, 250", "warmup_growth": 2, "warmup_target": 900}

    response = change(
        root,
        engine,
        fault_threshold=3,
        cool_off_seconds=60,
        **warmup,
        **{"limits-TOTAL_FORMS": 1},
        **{f"limits-0-{name}": value for name, value in limit.items()},
    )

    engine.refresh_from_db()
    assert response.status_code == 302
    assert (engine.breaker_policy.threshold, engine.breaker_policy.cool_off) == (3, timedelta(minutes=1))
    assert (engine.ramp.caps, engine.ramp.growth, engine.ramp.target) == ((150, 250), 2.0, 900)
    assert {name: getattr(engine.limits.get(), name) for name in limit} == limit


# ---- what the provider says when an engine is saved ----


@pytest.fixture
def postmark(settings):
    settings.OUTREACH = settings.OUTREACH | {"ALLOWED_NETWORKS": [ip_network("127.0.0.0/8")]}
    with postmark_server.serving() as server:
        yield server


def entered(postmark: postmark_server.Postmark, **values: object) -> dict[str, object]:
    """A form for this Postmark, right in everything that is not said otherwise."""
    form = {"name": "Post", "slug": "post", "option_stream": "broadcast", "option_endpoint": postmark.url}
    return COMMON | form | {"option_token": TOKEN} | values


def stored(postmark: postmark_server.Postmark) -> Engine:
    options = {"stream": "broadcast", "endpoint": postmark.url}
    return Engine.objects.create(
        name="Post", slug="post", kind="postmark", options=options, secrets=Sealed.seal({"token": TOKEN})
    )


def add(client: Client, form: dict[str, object]) -> HttpResponse:
    return client.post(f"{ENGINES}add/?kind=postmark", form)


def test_settings_that_the_provider_confirms_are_saved_without_a_word(postmark, root):
    response = add(root, entered(postmark))

    assert response.status_code == 302
    assert postmark.asked == ["/server", "/message-streams/broadcast"]
    assert "the check found" not in said(root, response)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"option_token": WRONG}, "Postmark does not know this server token."),
        ({"option_stream": "outbund"}, "Postmark knows no message stream “outbund” on this server."),
    ],
)
def test_what_the_provider_certainly_refuses_is_not_saved(wrong, words, postmark, root):
    response = add(root, entered(postmark, **wrong))

    assert response.status_code == 200
    assert words in text_of(response)
    assert 'name="save_anyway"' in text_of(response)
    assert WRONG not in text_of(response)
    assert TOKEN not in text_of(response)
    assert not Engine.objects.exists()


def test_a_wrong_key_leaves_the_stored_one_in_place_and_must_be_entered_again(postmark, root):
    engine = stored(postmark)

    response = root.post(page_of(engine), entered(postmark, option_token=WRONG))

    assert "Postmark does not know this server token." in text_of(response)
    assert "Enter it again" in text_of(response)
    assert Engine.objects.get().secrets.open() == {"token": TOKEN}


def test_the_box_saves_what_the_provider_objects_to_and_the_objection_is_shown(postmark, root):
    response = add(root, entered(postmark, option_token=WRONG, save_anyway="on"))

    page = said(root, response)
    assert "Saved although the provider objects: Postmark does not know this server token." in page
    assert Engine.objects.get().secrets.open() == {"token": WRONG}
    assert WRONG not in page


def test_the_box_is_offered_only_after_an_objection(postmark, root):
    pages = [root.get(f"{ENGINES}add/?kind=postmark"), root.get(page_of(stored(postmark)))]

    assert ["save_anyway" in text_of(page) for page in pages] == [False, False]


def test_the_box_saves_nothing_that_is_wrong_without_asking(postmark, root):
    page = text_of(add(root, entered(postmark, option_stream="out bound", save_anyway="on")))

    assert "“out bound” is no message stream" in page
    assert (postmark.asked, Engine.objects.count()) == ([], 0)


def test_a_provider_that_cannot_be_reached_does_not_keep_settings_from_being_saved(postmark, root):
    form = entered(postmark, option_endpoint=f"http://127.0.0.1:{NOBODY_LISTENS}")

    page = said(root, add(root, form))

    assert "Saved; the check found: 127.0.0.1 cannot be reached" in page
    assert Engine.objects.get().options["endpoint"] == form["option_endpoint"]


def test_a_doubt_is_shown_and_the_engine_saved(postmark, root):
    postmark.delivery_type = "Sandbox"

    page = said(root, add(root, entered(postmark)))

    assert "Saved; the check found: This Postmark server is a sandbox" in page
    assert Engine.objects.exists()


def test_a_server_that_refuses_a_mail_login_is_heard_just_as_well(root):
    with smtp_server.serving(auth="PLAIN", username="mailer", password="another") as server:
        form = SETTINGS | {"option_port": server.port, "option_password": PASSWORD}
        page = text_of(root.post(f"{ENGINES}add/?kind=smtp", form))

    assert f"127.0.0.1:{server.port} refused the login of “mailer”: 535" in page
    assert not Engine.objects.exists()


@pytest.mark.parametrize(
    ("changed", "asks"),
    [
        ({}, False),
        ({"name": "Post office", "enabled": ""}, False),
        ({"fault_threshold": 9, "warmup_from": "2026-11-20", "warmup_caps": "10"}, False),
        ({"option_token": TOKEN}, False),
        ({"option_timeout": 30}, True),
        ({"option_token": WRONG, "save_anyway": "on"}, True),
        ({"sender_domains": "shop.example"}, True),
    ],
)
def test_a_provider_is_asked_only_about_what_it_has_a_say_in_and_what_is_new(changed, asks, postmark, root):
    engine = stored(postmark)

    response = root.post(page_of(engine), entered(postmark, **{"option_token": ""} | changed))

    assert (response.status_code, bool(postmark.asked)) == (302, asks)


def test_nobody_who_may_only_look_makes_us_ask_a_provider(postmark, viewer):
    engine = stored(postmark)
    form = entered(postmark, option_stream="other")

    answers = [
        add(viewer, form),
        viewer.post(page_of(engine), form),
        viewer.post(f"{ENGINES}{engine.pk}/check/", CONFIRMED),
    ]

    assert [answer.status_code for answer in answers] == [403, 403, 403]
    assert postmark.asked == []


def test_a_form_for_an_engine_that_is_gone_asks_nobody(postmark, root):
    response = root.post(f"{ENGINES}77/change/?kind=postmark", entered(postmark))

    assert (response.status_code, postmark.asked) == (302, [])


@pytest.mark.django_db(transaction=True)
def test_others_may_write_while_a_provider_takes_its_time(postmark, root):
    engine = stored(postmark)

    def write() -> None:
        try:
            if connection.vendor == "sqlite":
                with connection.cursor() as cursor:
                    cursor.execute("PRAGMA busy_timeout = 200")  # instead of waiting as long as the form may
            Bucket.objects.create(key=f"written during question {len(postmark.asked)}")
        finally:
            connection.close()

    postmark.meanwhile = write

    response = root.post(page_of(engine), entered(postmark, option_timeout=30))

    assert response.status_code == 302
    assert Bucket.objects.count() == len(postmark.asked) == 2


# ---- the connection, checked by hand ----


def test_the_check_is_a_dialog_first_and_asks_nobody_before_it_is_confirmed(postmark, root):
    engine = stored(postmark)

    page, dialog = root.get(page_of(engine)), root.get(f"{ENGINES}{engine.pk}/check/")

    assert "Check connection" in text_of(page)
    assert "Check the connection?" in text_of(dialog)
    assert postmark.asked == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "Nothing is wrong with the settings"),
        ({"secrets": Sealed.seal({"token": WRONG})}, "Postmark does not know this server token."),
        ({"secrets": Sealed("not what any key made")}, "The stored credentials cannot be decrypted"),
    ],
)
def test_a_confirmed_check_says_what_it_found_and_changes_nothing(change, words, postmark, root):
    engine = stored(postmark)
    Engine.objects.update(**change)
    shared().change(engine.pk, lambda condition, at: Condition(Breaker(State.OPEN, 5, timedelta(seconds=9), at)))
    before = (Engine.objects.values().get(), shared().conditions([engine.pk]))

    response = root.post(f"{ENGINES}{engine.pk}/check/", CONFIRMED)

    after = (Engine.objects.values().get(), shared().conditions([engine.pk]))
    assert (response.status_code, response.headers["Location"]) == (302, page_of(engine))
    assert words in said(root, response)
    assert [str(each) for each in after] == [str(each) for each in before]


def test_the_dialog_in_the_browser_is_led_on_by_htmx(root):
    engine = Engine.objects.create(name="Sandbox", slug="sandbox", kind="sandbox")

    response = root.post(f"{ENGINES}{engine.pk}/check/", CONFIRMED, headers={"HX-Request": "true"})

    assert (response.status_code, response.headers["HX-Redirect"]) == (200, page_of(engine))


@pytest.mark.parametrize("pk", ["77", "x"])
def test_an_engine_that_is_not_there_cannot_be_checked(pk, root):
    assert root.post(f"{ENGINES}{pk}/check/", CONFIRMED).status_code == 404


# ---- what the workers know ----


def troubled(engine: Engine) -> Condition:
    """The condition of an engine in every kind of trouble, once it has it."""
    later = now() + timedelta(hours=1)
    condition = Condition(
        breaker=Breaker(State.OPEN, 5, timedelta(seconds=30), later),
        pace=0.25,
        pace_changed_at=now(),
        paused_until=later,
        last_error="421 slow down <b>",
        last_error_at=now(),
    )
    shared().change(engine.pk, lambda before, at: condition)
    return condition


def test_an_engines_page_shows_what_the_workers_know_of_it(root, viewer):
    engine = smtp_engine()
    troubled(engine)

    for client in (root, viewer):
        response = client.get(page_of(engine))

        page = text_of(response)
        assert all(words in page for words in ("open: nothing goes through", "25% of its limits", "421 slow down <b>"))
        assert "421 slow down <b>" not in response.content.decode()


def test_the_list_asks_as_much_for_two_engines_as_for_fifty(root):
    def some(number: int) -> None:
        engines = [Engine(name=f"E{number}-{i}", slug=f"e{number}-{i}", kind="sandbox") for i in range(number)]
        for engine in Engine.objects.bulk_create(engines):
            engine.limits.create(quantity=1)
            troubled(engine)

    some(2)
    few = queries_of(root, ENGINES)
    some(48)
    many = queries_of(root, ENGINES)

    assert len(many) == len(few) <= 8
    assert len([sql for sql in many if "delivery_enginestate" in sql]) == 1
    assert len(re.findall(r">\s*open\s*<", text_of(root.get(ENGINES)))) == 50


def test_pages_say_so_when_nobody_can_tell_how_the_engines_are(root, viewer, settings):
    engine = smtp_engine()
    shared_store_away(settings)

    for client in (root, viewer):
        answers = [client.get(ENGINES), client.get(page_of(engine))]

        assert [answer.status_code for answer in answers] == [200, 200]
        assert "What the workers know of the engines is not to be had now: Redis: " in text_of(answers[0])
        assert re.search(r"Not known now</label>.*Redis: Error", text_of(answers[1]), re.DOTALL)


def test_an_engine_is_saved_while_nobody_can_tell_how_it_is(root, settings):
    engine = smtp_engine()
    shared_store_away(settings)

    assert change(root, engine, name="Other relay").status_code == 302
    assert Engine.objects.get().name == "Other relay"


# ---- numbers in words ----


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ({"quantity": 45_000, "period": "day", "burst": 5_000}, "at most 50,000 messages in any day"),
        ({"quantity": 10, "period": "second"}, "at most 20 messages in any second"),
        ({"quantity": 10, "period": "second", "burst": 1}, "at most 11 messages in any second"),
        ({"quantity": 60, "period": "minute", "counts": "calls"}, "at most 61 calls in any minute"),
        ({"quantity": None, "period": "second"}, ""),
        ({"quantity": 10, "period": "fortnight"}, ""),
    ],
)
def test_a_limit_says_how_much_any_window_holds(limit, words):
    assert limit_means(EngineLimit(**limit)) == words


def test_the_page_shows_what_each_limit_comes_to(root):
    engine = smtp_engine()
    engine.limits.create(quantity=45_000, period="day", burst=5_000)

    assert "at most 50,000 messages in any day" in text_of(root.get(page_of(engine)))


DAY = timedelta(days=1)
FIRST = datetime(2026, 11, 20, tzinfo=UTC)


@pytest.mark.parametrize(
    ("ramp", "at", "words"),
    [
        (None, FIRST, "There is none: only the limits hold."),
        (Ramp(FIRST, (100, 200)), FIRST, "Day 1: at most 100 mails in any 24 hours. It is over on 2026-11-22."),
        (Ramp(FIRST, (100, 200)), FIRST + DAY, "Day 2: at most 200 mails in any 24 hours. It is over on 2026-11-22."),
        (Ramp(FIRST, (100, 200)), FIRST + 9 * DAY, "Over since 2026-11-22: only the limits hold."),
        (Ramp(FIRST, (100, 200), target=90), FIRST, "Over since 2026-11-20: only the limits hold."),
        (
            Ramp(FIRST, (100, 200), growth=2, target=1000),
            FIRST + 2.5 * DAY,
            "Day 3: at most 400 mails in any 24 hours. It is over on 2026-11-24.",
        ),
        (
            Ramp(FIRST, (10,), growth=1.01, target=100),
            FIRST,
            "Day 1: at most 10 mails in any 24 hours. At this growth it is not over within three years.",
        ),
        (
            Ramp(FIRST, (1500, 2000)),
            FIRST - DAY,
            "Begins on 2026-11-20. Until then the first day's 1,500 mails hold. It is over on 2026-11-22.",
        ),
    ],
)
def test_a_warm_up_says_what_it_allows_today_and_when_it_is_over(ramp, at, words):
    assert warmup_means(ramp, at) == words


def test_the_page_shows_where_the_warm_up_is(root):
    engine = smtp_engine()
    Engine.objects.update(warmup_from=localdate(), warmup_caps="1500, 2000")

    assert "Day 1: at most 1,500 mails in any 24 hours." in text_of(root.get(page_of(engine)))


@pytest.mark.parametrize(
    ("breaker", "words"),
    [
        (Breaker(), "-"),
        (Breaker(State.OPEN, probe_at=FIRST + DAY), "2026-11-21 00:00:00"),
        (Breaker(State.OPEN, probe_at=FIRST), "with the next mail"),
        (Breaker(State.OPEN), "not planned"),
    ],
)
def test_the_next_probe_is_an_instant_or_the_next_mail(breaker, words):
    assert next_probe(breaker, FIRST) == words


def test_what_a_provider_says_is_text_and_no_markup(root):
    with smtp_server.serving(faults=[{"at": "greeting", "say": "554 <script>alert(1)</script>\r\n"}]) as server:
        form = SETTINGS | {"option_port": server.port, "option_password": PASSWORD}
        response = root.post(f"{ENGINES}add/?kind=smtp", form, follow=True)

    assert "<script>alert(1)" in text_of(response)
    assert "<script>alert(1)" not in response.content.decode()


def test_a_warm_up_that_would_never_end_is_refused():
    engine = Engine(
        name="one", slug="one", kind="sandbox", warmup_from=date(2026, 8, 1), warmup_caps="1", warmup_target=99
    )

    with pytest.raises(ValidationError, match="never reaches its target"):
        engine.clean()
