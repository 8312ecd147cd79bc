"""Answers for Hypothesis to choose from: any status, waits that are none, bodies that no provider documents."""

import json

from hypothesis import strategies as st

STATUSES = st.one_of(st.integers(100, 599), st.sampled_from([200, 201, 202, 400, 401, 409, 422, 429, 500, 503]))
NAMES = st.sampled_from(
    ["id", "data", "errors", "index", "message", "MessageID", "MessageId", "ErrorCode", "Message", "code", "name",
     "messageId", "messageIds", "field", "__type", "domain", "domains", "relay", "scopes", "statusCode"]
)  # fmt: skip
WORDS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["0", "300", "406", "to", "from", "sender", "<a@b>", "\0", "\ud800", "daily quota", "🦆"]),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | WORDS, inner, max_size=4),
    max_leaves=12,
)
MAYBE = st.none() | st.booleans() | st.integers(-1, 5) | WORDS | VALUES
RESULT = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("id", "index", "message", "ErrorCode", "Message", "MessageID", "field", "name"), MAYBE),
)
SHAPES = st.one_of(
    RESULT,
    st.lists(RESULT | MAYBE, max_size=4),
    st.fixed_dictionaries({"data": st.lists(RESULT | MAYBE, max_size=4), "errors": st.lists(RESULT, max_size=3)}),
    st.fixed_dictionaries({"messageIds": st.lists(MAYBE, max_size=4)}, optional={"messageId": MAYBE}),
    st.fixed_dictionaries({"code": MAYBE, "message": MAYBE, "name": MAYBE, "id": MAYBE, "MessageId": MAYBE}),
    st.fixed_dictionaries({"domains": st.lists(RESULT | MAYBE), "relay": MAYBE, "scopes": MAYBE, "domain": RESULT}),
)
BODIES = st.one_of(
    st.binary(max_size=60),
    SHAPES.map(lambda value: json.dumps(value).encode()),
    VALUES.map(lambda value: json.dumps(value).encode()),
    SHAPES.map(lambda value: json.dumps(value).encode()[:-1]),
    WORDS.map(lambda text: f"<html><script>{text}<p>502 Bad Gateway<".encode("utf-8", "replace")),
)
HEADERS = st.dictionaries(
    st.sampled_from(
        ["retry-after", "ratelimit-reset", "x-ratelimit-reset", "x-sib-ratelimit-reset", "x-message-id",
         "x-amzn-errortype", "content-type"]
    ),
    st.one_of(
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40),
        st.sampled_from(["-1", "nan", "inf", "1e400", "Mon, 20 Dec 2021 20:33:21 UTC", "Fri, 02 Jan 2026 03:05 GMT"]),
    ),
    max_size=3,
)  # fmt: skip
