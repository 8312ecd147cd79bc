"""The kinds of engines that are APIs, as an operator sets them up: from a form's options to a call that arrives."""

import asyncio
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delivery.core.envelope import Kind
from delivery.engines import brevo, mailgun, postmark, resend, sendgrid, ses
from tests.delivery.provider_mails import SECRETS, envelope, secrets_of

pytestmark = pytest.mark.once

# Kind, options beside those that all have, and the secrets by name.
KINDS = {
    "sendgrid": (sendgrid.KIND, {"region": "global"}, "api_key"),
    "ses": (ses.KIND, {"region": "eu-west-1", "access_key_id": "AKIAIOSFODNN7EXAMPLE"}, "secret_access_key"),
    "mailgun": (mailgun.KIND, {"region": "us", "domain": "mg.shop.example"}, "api_key"),
    "postmark": (postmark.KIND, {"stream": "broadcast"}, "token"),
    "resend": (resend.KIND, {"batch_size": 10}, "api_key"),
    "brevo": (brevo.KIND, {"batch_size": 10}, "api_key"),
}
EVERY = pytest.mark.parametrize("slug", list(KINDS))
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["\0", "https://["]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)


class Parrot(BaseHTTPRequestHandler):
    """Refuses everything, and says what it was told: the request's headers."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        said = str(self.headers).encode()
        self.send_response(400)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *args):
        return


@pytest.fixture(scope="module")
def parrot():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Parrot)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@EVERY
def test_a_call_arrives_and_no_credential_comes_back(slug, parrot, settings):
    settings.OUTREACH = {**settings.OUTREACH, "ALLOWED_NETWORKS": [ip_network("127.0.0.0/8")]}
    kind, options, secret = KINDS[slug]
    options = options | {"endpoint": parrot}
    secrets = {secret: SECRETS[slug]}

    async def story():
        engine = kind.open(1, options, secrets)
        try:
            return await engine.send([envelope()])
        finally:
            await engine.close()

    (outcome,) = asyncio.run(story())

    assert kind.problems(options, secrets) == []
    assert (outcome.kind, "Host: 127.0.0.1" in outcome.text) == (Kind.MESSAGE, True)
    assert not any(hidden in outcome.text for hidden in secrets_of(slug))


@EVERY
def test_a_form_has_a_field_for_everything_that_the_kind_reads(slug):
    kind, options, secret = KINDS[slug]

    names = set(kind.fields())

    assert names >= {*options, secret, *kind.secret_fields, "concurrency", "timeout", "endpoint"}
    assert kind.slug == slug


@EVERY
def test_the_defaults_of_the_form_are_no_problem(slug):
    kind, options, secret = KINDS[slug]
    initial = {name: field.initial for name, field in kind.fields().items() if field.initial is not None}

    assert kind.problems(initial | options, {secret: SECRETS[slug]}) == []


@EVERY
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_options_of_any_type_are_judged_and_never_break(slug, data):
    kind, _, secret = KINDS[slug]
    options = {name: data.draw(ANYTHING) for name in kind.fields() if name not in kind.secret_fields}

    found = kind.problems(options, {secret: data.draw(st.text(max_size=30))})

    assert all(isinstance(problem, str) and problem.strip() for problem in found)
