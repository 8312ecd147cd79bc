"""The token of an unsubscribe link: names one delivery, cannot be made up, and outlives the keys it was made with."""

import re
import string

import pytest
from cryptography.fernet import Fernet
from hypothesis import example, given
from hypothesis import strategies as st

from delivery.unsubscribe import delivery_of, token_for

ids = st.integers(1, 2**63 - 1)
URL_SAFE = string.ascii_letters + string.digits + "-_"


@pytest.fixture
def keys(settings):
    def use(*chosen):
        settings.OUTREACH = {**settings.OUTREACH, "SECRET_KEYS": list(chosen)}

    return use


def new_key():
    return Fernet.generate_key().decode()


@given(ids)
@example(1)
@example(2**63 - 1)
def test_a_token_names_its_delivery_and_is_safe_in_a_url(delivery_id):
    token = token_for(delivery_id)

    assert delivery_of(token) == delivery_id
    assert re.fullmatch(r"[A-Za-z0-9_-]{32}", token)


@given(ids)
def test_every_mail_of_a_delivery_has_the_same_link(delivery_id):
    assert token_for(delivery_id) == token_for(delivery_id)


@given(ids, st.integers(0, 31), st.sampled_from(URL_SAFE))
def test_no_single_character_can_be_changed(delivery_id, position, character):
    token = token_for(delivery_id)
    changed = token[:position] + character + token[position + 1 :]

    assert delivery_of(changed) == (delivery_id if changed == token else None)


@given(ids, ids)
def test_the_tag_of_one_delivery_does_not_fit_another(one, other):
    # The eleventh character holds the last four bits of the id and the first two of the tag.
    forged = token_for(one)[:11] + token_for(other)[11:]

    assert delivery_of(forged) in (None, one, other)
    assert delivery_of(forged) is None or forged in (token_for(one), token_for(other))


@given(st.text(max_size=80))
@example("")
@example("A" * 32)
@example("=" * 32)
@example("ü" * 32)
def test_made_up_text_names_nobody(text):
    assert delivery_of(text) is None


@given(ids, st.integers(0, 31))
def test_a_token_that_was_cut_or_grew_names_nobody(delivery_id, length):
    token = token_for(delivery_id)

    assert delivery_of(token[:length]) is None
    assert delivery_of(token + token[:length]) is None or length == 0


def test_a_link_in_an_old_mail_works_after_the_keys_were_rotated(keys):
    old, new = new_key(), new_key()
    keys(old)
    token = token_for(7)

    keys(new, old)

    assert delivery_of(token) == 7
    assert token_for(7) != token
    assert delivery_of(token_for(7)) == 7


def test_a_token_of_a_key_that_is_gone_names_nobody(keys):
    keys(new_key())
    token = token_for(7)

    keys(new_key())

    assert delivery_of(token) is None
