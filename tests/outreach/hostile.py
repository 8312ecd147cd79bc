"""What nobody who means well sends: bodies, queries, header fields and names, and where in a body of a given shape they
can stand."""

import base64
import copy
import json
import random
from collections.abc import Iterator, Mapping
from urllib.parse import quote

NOBODY = "nobody"  # a field that nothing has

# What a body of JSON cannot be, whatever is asked for.
BODIES = {
    "nothing": b"",
    "no JSON": b"{'a': 1}",
    "half of it": b'{"a": ',
    "more than one": b"{} {}",
    "not UTF-8": b'{"why": "\xff\xfe"}',
    "UTF-16": '{"why": "a"}'.encode("utf-16"),
    "NUL": rb'{"why": "a\u0000b"}',
    "NUL in a name": rb'{"a\u0000b": 1}',
    "NUL as it is": b'{"why": "\0"}',
    "half a character": rb'{"why": "\ud800"}',
    "half a character in a name": rb'{"\udfff": 1}',
    "40 levels of lists": b"[" * 40 + b"]" * 40,
    "40 levels of objects": b'{"a":' * 40 + b"1" + b"}" * 40,
    "100,000 levels": b"[" * 100_000,
    "400 digits": b'{"priority": ' + b"9" * 400 + b"}",
    "5,000 digits": b'{"priority": ' + b"9" * 5000 + b"}",
    "too much for a float": b'{"wait": 1e999}',
    "not a number": b'{"wait": NaN}',
    "infinity": b'{"wait": -Infinity}',
    "a name twice": b'{"why": "a", "why": "b"}',
    "a list": b"[]",
    "a list of objects": b'[{"why": "a"}]',
    "a text": b'"why"',
    "a number": b"7",
    "null": b"null",
    "true": b"true",
    "an unknown field": b'{"nobody": 1}',
    "10,000 unknown fields": json.dumps(dict.fromkeys(map(str, range(10_000)))).encode(),
    "a field of Python's": b'{"__class__": "a", "__proto__": {}, "pk": 1}',
}
MEDIA_TYPES = (
    "application/xml",
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "application/json/json",
    "json",
    "*/*",
    "\xff",
    "a" * 5000,
    "; charset=utf-8",
)
IDS = (
    *("0", "-1", "+1", "1.0", "1e3", "0x1", "null", str(2**63), "1" + "0" * 30, "9" * 5000, "%201", "%FF", "%25s"),
    *("%00", "1%00", "%D9%A1", "%EF%BC%91", "%2E%2E", "%2F", "a%2Fb", "a/b", "%27%20OR%201=1--", "%7B%7D"),
)
PAGE_SIZES = ("0", "-1", "abc", str(10**9), "9" * 5000, "1.5", "1,2", "501", "", "%20", "%D9%A3", "%00")
TEXTS = (
    *(
        "%00",
        "a%00b",
        "%FF",
        "%EF%BF%BF",
        "%F0%9F%92%A9",
        "%25s%25(a)s",
        "%7B0%7D",
        "%27%3B--",
        "[]",
        "..%2F..",
        "null",
    ),
    *("9" * 400, "-" + "9" * 40, "x" * 5000, "NaN", "1e999", "-1", "0", "true"),
    *("2026-13-45T99:99:99Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00"),
)
AUTHORIZATIONS = (
    *("", "Bearer", "Bearer ", "bearer x y", "Bearer \xe9\xff", "Bearer null", "Basic YTpi", "Digest a", "\xff\xfe"),
    *("Bearer outreach_" + "a" * 40, "Bearer outreach_" + "\xe9" * 40, "Bearer a, " * 50, "Bearer " + "a" * 1_000_000),
)
ACCEPTS = ("application/xml", "image/png", "garbage", ";;;", "a/b/c", "*", "image/*;q=x", "a" * 10_000, "\xff", ",,,")
KEYS = ("x" * 201, "x" * 100_000, "\xe9", "a\tb", "a\x7fb", "\x01", " ", "a b\x85c")
HOSTS = ("elsewhere.example", "", "a b", "\xff", "x" * 10_000, "[::1", "localhost.elsewhere.example")
METHODS = ("TRACE", "CONNECT", "PROPFIND", "PUT", "\xff", "x" * 5000)


def _cursor(text: str | bytes) -> str:
    octets = text.encode() if isinstance(text, str) else text
    return quote(base64.b64encode(octets).decode())


POSITIONS = (
    *("", "%00", "a%00b", "abc", "1.5", "NaN", "%FF", "%ED%A0%80", "%F0%9F%92%A9", "1&p=2", "x" * 5000),
    *("9" * 30, "-" + "9" * 30, "9" * 5000, "2026-13-45", "0000-00-00T00:00:00Z", "9999-12-31T23:59:59-23:59"),
)
CURSORS = (
    *("x", "%00", "%C3%A9", "=", "====", "a" * 10_000),
    *(_cursor(f"p={position}") for position in POSITIONS),
    *(_cursor(f"r=1&p={position}") for position in POSITIONS),
    *map(_cursor, ("o=abc", "o=-1", "o=" + "9" * 30, "r=x&p=%27", b"p=\xff", b"\0\0\0")),
)

VALUES = (
    *(None, True, False, 0, -1, 1.5, -(2**63), 2**63 - 1, 2**63, 10**400, 1e308),
    *("", " ", "\0", "a\0b", "\ud800", "x" * 5000, "x" * 100_000, "é" * 300, "\u202e\ufeff", "💩", "9" * 400, "NaN"),
    *("%s%(a)s{0}", "{{ 7 * 7 }}", "{% for x in y %}", "<script>", "\r\nBcc: a@b.c", "a@b", "@", "a@b.example\r\nX: y"),
    *("2026-13-45T99:99:99Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"),
    *("http://[::1", "http://169.254.169.254/", "file:///etc/passwd", "../.."),
    *([], {}, [[]], [{}], [None], [0] * 1000, ["x"] * 3, {"": ""}, {"a": {"b": {"c": []}}}),
)


def resolved(schema: Mapping, document: Mapping) -> Mapping:
    """A schema without the references that it is made of."""
    if "$ref" in schema:
        return resolved(document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]], document)
    if len(schema.get("allOf", ())) == 1:
        return {**resolved(schema["allOf"][0], document), **{k: v for k, v in schema.items() if k != "allOf"}}
    return schema


def with_unknown_fields(value: object, schema: Mapping, document: Mapping) -> Iterator[tuple[str, object]]:
    """A body with one field too many, at each of its levels in turn, and the pointer to that field."""
    schema = resolved(schema, document)
    if isinstance(value, dict):
        if schema.get("additionalProperties") is False:
            yield f"/{NOBODY}", {**value, NOBODY: 1}
        for name, inner in value.items():
            for pointer, changed in with_unknown_fields(inner, schema.get("properties", {}).get(name, {}), document):
                yield f"/{name}{pointer}", {**value, name: changed}
    elif isinstance(value, list) and value:
        for pointer, changed in with_unknown_fields(value[0], schema.get("items", {}), document):
            yield f"/0{pointer}", [changed, *value[1:]]


OF_TYPE = {
    "string": str,
    "integer": (int, float),
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}
ONE_OF_EACH = ("x", 7, 7.5, True, [7], {"a": 7})


def with_other_types(
    value: dict, schema: Mapping, document: Mapping, rng: random.Random
) -> Iterator[tuple[str, object]]:
    """A body with a value of some other type in one field, for each field in turn, and the pointer to that field."""
    for name, of_field in resolved(schema, document).get("properties", {}).items():
        kinds = tuple(_types(of_field, document))
        others = [other for other in ONE_OF_EACH if not any(_is_a(other, kind) for kind in kinds)]
        if kinds and others:
            yield f"/{name}", {**value, name: rng.choice(others)}


def _types(schema: Mapping, document: Mapping) -> Iterator[str]:
    schema = resolved(schema, document)
    if "type" in schema:
        yield schema["type"]
    for each in (*schema.get("oneOf", ()), *schema.get("anyOf", ())):
        yield from _types(each, document)


def _is_a(value: object, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, OF_TYPE[kind])


# What no text and no number may be, wherever it stands: not every database could keep it.
UNKEEPABLE = ("a\0b", "\ud800", 2**63, 10**400)


def with_each_replaced(value: object, other: object) -> Iterator[object]:
    """A body with another value in one place, for each place in turn, however deep."""
    places = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for place, inner in list(places):
        for changed in (other, *with_each_replaced(inner, other)):
            copied = copy.copy(value)
            copied[place] = changed
            yield copied


def mutated(value: object, rng: random.Random) -> object:
    """The body with something hostile in some place of it."""
    value = copy.deepcopy(value)
    if not isinstance(value, dict | list) or not value or rng.random() < 0.2:
        return rng.choice(VALUES)
    where = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
    if isinstance(value, dict) and rng.random() < 0.2:
        value[rng.choice((NOBODY, "", "a/b~c", "é", "x" * 300))] = rng.choice(VALUES)
    elif isinstance(value, dict) and rng.random() < 0.1:
        del value[where]
    else:
        value[where] = mutated(value[where], rng)
    return value
