"""Credentials are encrypted at rest, never shown by accident, and survive the rotation of keys."""

import json
import logging
import pickle

import pytest
from cryptography.fernet import Fernet
from django.core import serializers
from django.db import connection
from django.forms.models import model_to_dict

from delivery.exceptions import SecretUnreadable
from delivery.models import Engine
from delivery.secrets import Sealed

PLAIN = {"password": "hunter2-very-secret", "token": "s3cr3t"}


@pytest.fixture
def keys(settings):
    """Sets the keys at hand; called with fresh ones at first."""

    def use(*chosen):
        settings.OUTREACH = {**settings.OUTREACH, "SECRET_KEYS": list(chosen)}

    use(new_key())
    return use


def new_key():
    return Fernet.generate_key().decode()


def shows(text):
    return any(secret in text for secret in PLAIN.values())


def test_what_was_sealed_opens_to_the_same(keys):
    assert Sealed.seal(PLAIN).open() == PLAIN


def test_nothing_sealed_needs_no_key(keys):
    keys()

    assert Sealed.seal({}).open() == Sealed().open() == {}
    assert not Sealed.seal({})


def test_the_same_credentials_never_look_the_same_twice(keys):
    assert Sealed.seal(PLAIN).token != Sealed.seal(PLAIN).token


@pytest.mark.parametrize("show", [repr, str, "{}".format, "%s".__mod__, "%r".__mod__, lambda s: f"{[s]}"])
def test_no_way_of_printing_shows_it(keys, show):
    sealed = Sealed.seal(PLAIN)

    shown = show(sealed)

    assert "Sealed(…)" in shown
    assert not shows(shown)
    assert sealed.token not in shown


def test_a_log_line_and_a_traceback_do_not_show_it(keys, caplog):
    sealed = Sealed.seal(PLAIN)
    try:
        raise ValueError(sealed)
    except ValueError:
        logging.getLogger().exception("engine with %s and %r", sealed, {"secrets": sealed})

    assert "Sealed(…)" in caplog.text
    assert not shows(caplog.text)


def test_it_is_no_json_and_no_pickle_of_the_plain_words(keys):
    sealed = Sealed.seal(PLAIN)

    with pytest.raises(TypeError):
        json.dumps({"secrets": sealed})
    assert not any(secret.encode() in pickle.dumps(sealed) for secret in PLAIN.values())


def test_a_new_first_key_leaves_the_old_ones_readable_and_rotation_makes_them_needless(keys):
    old, new = new_key(), new_key()
    keys(old)
    sealed = Sealed.seal(PLAIN)
    keys(new, old)

    assert sealed.open() == PLAIN
    rotated = sealed.rotated()
    keys(new)

    assert rotated.open() == PLAIN
    with pytest.raises(SecretUnreadable, match="OUTREACH_SECRET_KEYS"):
        sealed.open()


def test_a_changed_token_is_refused_without_a_word_of_what_is_in_it(keys):
    token = Sealed.seal(PLAIN).token
    changed = token[:40] + ("A" if token[40] != "A" else "B") + token[41:]

    with pytest.raises(SecretUnreadable) as refused:
        Sealed(changed).open()

    assert refused.value.__suppress_context__
    assert token not in str(refused.value)


def test_without_a_key_sealing_says_what_to_do(keys):
    keys()

    with pytest.raises(SecretUnreadable, match="make env"):
        Sealed.seal(PLAIN)


@pytest.mark.django_db
def test_the_database_holds_only_the_encrypted_form(keys):
    engine = Engine.objects.create(name="e", slug="e", kind="smtp", secrets=Sealed.seal(PLAIN))

    with connection.cursor() as cursor:
        cursor.execute("SELECT secrets FROM delivery_engine")
        [stored] = cursor.fetchone()

    assert not shows(stored)
    assert Engine.objects.get(pk=engine.pk).secrets.open() == PLAIN


@pytest.mark.django_db
def test_an_engine_without_credentials_holds_the_empty_string():
    Engine.objects.create(name="e", slug="e", kind="sandbox")

    assert not Engine.objects.get().secrets
    assert Engine.objects.filter(secrets="").exists()


@pytest.mark.django_db
def test_a_dump_restores_and_tells_nobody_anything(keys):
    Engine.objects.create(name="e", slug="e", kind="smtp", secrets=Sealed.seal(PLAIN))

    dump = serializers.serialize("json", Engine.objects.all())
    Engine.objects.all().delete()
    for restored in serializers.deserialize("json", dump):
        restored.save()

    assert not shows(dump)
    assert Engine.objects.get().secrets.open() == PLAIN


@pytest.mark.django_db
def test_a_form_of_the_model_does_not_have_it(keys):
    engine = Engine.objects.create(name="e", slug="e", kind="smtp", secrets=Sealed.seal(PLAIN))

    assert "secrets" not in model_to_dict(engine)
    assert not shows(str(Engine.objects.values().get()))
