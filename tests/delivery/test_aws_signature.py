"""Signatures, against botocore's and against the vector of providers.md §8."""

from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import quote

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials
from hypothesis import given, settings
from hypothesis import strategies as st

from delivery.engines.aws_signature import Credentials, Scope, signed

pytestmark = pytest.mark.once

KEY_ID, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
URL = "https://email.us-east-1.amazonaws.com/v2/email/outbound-emails"
BODY = b'{"FromEmailAddress":"a@example.com"}'
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

WORD = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=1, max_size=12)
SEGMENT = WORD.filter(lambda text: text.strip(".")).map(lambda text: quote(text, safe="~"))
VALUE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20) | st.just(" a  b ")


def signature(url=URL, *, token="", at=AT, headers=(("Content-Type", "application/json"),), body=BODY, **changes):
    given = {"method": "POST", "region": "us-east-1", **changes}
    return signed(
        given["method"],
        url,
        dict(headers),
        body,
        credentials=Credentials(KEY_ID, SECRET, token),
        scope=Scope(given["region"], "ses"),
        now=at,
    )


def by_botocore(method, url, headers, body, token, region, at):
    stamp = at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    sent = headers | {"X-Amz-Date": stamp} | ({"X-Amz-Security-Token": token} if token else {})
    request = AWSRequest(method, url, headers=sent, data=body)
    request.context["timestamp"] = stamp
    auth = SigV4Auth(BotocoreCredentials(KEY_ID, SECRET, token or None), "ses", region)
    canonical = auth.canonical_request(request)
    proof = auth.signature(auth.string_to_sign(request, canonical), request)
    names = auth.signed_headers(auth.headers_to_sign(request))
    return f"AWS4-HMAC-SHA256 Credential={auth.scope(request)}, SignedHeaders={names}, Signature={proof}"


def test_the_signature_is_that_of_the_vector():
    proof = signature()

    assert proof == {
        "Content-Type": "application/json",
        "X-Amz-Date": "20260102T030405Z",
        "Authorization": (
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260102/us-east-1/ses/aws4_request, "
            "SignedHeaders=content-type;host;x-amz-date, "
            "Signature=dce7c95dcbd2f9feb199fd6a354378fd517cf3cb3d8bb73dc27b71bfea235030"
        ),
    }


def test_a_session_token_is_sent_and_signed():
    proof = signature(token="TOKEN")

    assert proof["X-Amz-Security-Token"] == "TOKEN"
    assert proof["Authorization"].endswith(
        "content-type;host;x-amz-date;x-amz-security-token, "
        "Signature=d3aa20aa637d8041c05a3a80da7fbbcaa4672364652736191755cc32ee4536b9"
    )


def test_the_zone_of_the_clock_does_not_matter():
    elsewhere = AT.astimezone(timezone(timedelta(hours=-11)))

    assert signature(at=elsewhere) == signature()


@settings(max_examples=100, deadline=None)
@given(
    method=st.sampled_from(["GET", "POST", "PUT"]),
    host=st.sampled_from(["email.eu-west-1.amazonaws.com", "LOCALHOST", "[::1]"]),
    port=st.sampled_from(["", ":443", ":80", ":5000"]),
    scheme=st.sampled_from(["https", "http"]),
    path=st.lists(SEGMENT, max_size=4).map("/".join),
    query=st.lists(st.tuples(SEGMENT, SEGMENT).map("=".join), max_size=3).map("&".join),
    headers=st.dictionaries(st.sampled_from(["Content-Type", "X-Amz-Target", "Accept"]), VALUE, max_size=3),
    body=st.binary(max_size=40),
    token=st.sampled_from(["", "TOKEN", "a/b+c=="]),
    region=st.sampled_from(["us-east-1", "eu-central-2"]),
    at=st.datetimes(datetime(2000, 1, 1), datetime(2099, 1, 1), timezones=st.just(UTC)),
)
def test_any_request_is_signed_as_botocore_signs_it(
    method, host, port, scheme, path, query, headers, body, token, region, at
):
    url = f"{scheme}://{host}{port}/{path}{'?' if query else ''}{query}"

    proof = signature(url, method=method, headers=headers.items(), body=body, token=token, region=region, at=at)

    assert proof["Authorization"] == by_botocore(method, url, headers, body, token, region, at)
