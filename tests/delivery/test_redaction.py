"""What is hidden wherever something is written down: secrets by name and by what stands before them, addresses."""

import pytest

from delivery.redaction import is_secret_name, redacted, without_addresses, without_secrets

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    "name",
    ["password", "smtp_password", "X-Api-Key", "clientSecret", "access_token", "Authorization", "credential", "api_key",
     "secret", "AWS_SECRET_ACCESS_KEY", "secret_access_key", "access_key_id", "tokens", "Set-Cookie"],
)  # fmt: skip
def test_a_name_of_a_secret_is_known_in_any_spelling(name):
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["keyword", "token_url", "key_name", "auth", "monkey", "key", "passenger", "idempotency_header", "bypass"]
)
def test_a_name_that_only_looks_alike_is_none(name):
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgres://reader:pw@db/crm", "postgres://***@db/crm"),
        ("see https://db.example/a@b", "see https://db.example/a@b"),
        ("password=abc def", "password=*** def"),
        ('{"token": "abc", "n": 1}', '{"token": "***", "n": 1}'),
        ("Authorization: Token abc def\nnext", "Authorization: ***\nnext"),
        ("sent Bearer abcdefgh.ijk", "sent Bearer ***"),
        ("GET /u/abcdefghij?x=1", "GET /u/***?x=1"),
        ("the token is missing", "the token is missing"),
        ("550 5.1.1 unknown", "550 5.1.1 unknown"),
    ],
)
def test_text_loses_its_credentials_and_nothing_else(text, shown):
    assert without_secrets(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("550 <ada@example.test>: unknown", "550 <***>: unknown"),
        ("row 3, bjørn@bücher.example: it fails", "row 3, ***: it fails"),
        ("user+tag@sub.example.test over quota", "*** over quota"),
        ("nobody here", "nobody here"),
    ],
)
def test_text_loses_its_addresses(text, shown):
    assert without_addresses(text) == shown


def test_plain_data_keeps_its_form():
    given = {"host": "mail.example", "port": 25, "tls": True, "none": None, "list": [{"password": "x"}, ("a",)]}

    assert redacted(given) == {
        "host": "mail.example",
        "port": 25,
        "tls": True,
        "none": None,
        "list": [{"password": "***"}, ["a"]],
    }


def test_an_empty_secret_may_be_seen_to_be_empty():
    assert redacted({"password": "", "token": None}) == {"password": "", "token": None}
