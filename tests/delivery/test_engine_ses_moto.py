"""A whole conversation with moto, which plays Amazon SES and checks signatures by botocore."""

import asyncio
import json
from ipaddress import ip_network

import boto3
import httpx
import pytest
from moto.server import ThreadedMotoServer

from delivery.core.envelope import Kind, Mailbox, Outcome
from delivery.engines.ses import KIND
from delivery.mime import Builder
from tests.delivery.provider_mails import LOGO, PDF, SECRETS, envelope, frame

pytestmark = pytest.mark.once

SECRET = SECRETS["ses"]
KEY_ID = "AKIAIOSFODNN7EXAMPLE"


@pytest.fixture(scope="module")
def moto():
    """Amazon's API with one user who may use SES, and the identity shop.example; signatures count."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    anybody = {
        "endpoint_url": url,
        "region_name": "eu-west-1",
        "aws_access_key_id": KEY_ID,
        "aws_secret_access_key": SECRET,
    }
    iam = boto3.client("iam", **anybody)
    iam.create_user(UserName="mailer")
    may = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ses:*", "Resource": "*"}]}
    iam.put_user_policy(UserName="mailer", PolicyName="ses", PolicyDocument=json.dumps(may))
    key = iam.create_access_key(UserName="mailer")["AccessKey"]
    boto3.client("sesv2", **anybody).create_email_identity(EmailIdentity="shop.example")
    with httpx.Client(trust_env=False, base_url=url) as client:
        client.post("/moto-api/reset-auth", content=b"0")
        yield {"url": url, "id": key["AccessKeyId"], "secret": key["SecretAccessKey"], "client": client}
        client.post("/moto-api/reset-auth", content=b"inf")
    server.stop()


@pytest.fixture
def talk(moto, settings):
    """Runs a story with the engine that an operator would have set up."""
    settings.OUTREACH = {**settings.OUTREACH, "ALLOWED_NETWORKS": [ip_network("127.0.0.0/8")]}

    def talk(story, secret=moto["secret"]):
        options = {"region": "eu-west-1", "access_key_id": moto["id"], "endpoint": moto["url"]}
        secrets = {"secret_access_key": secret}
        assert KIND.problems(options, secrets) == []

        async def run():
            engine = KIND.open(1, options, secrets)
            try:
                return await story(engine)
            finally:
                await engine.close()

        return asyncio.run(run())

    return talk


def taken(moto):
    """The mail that moto took last."""
    return moto["client"].get("/moto-api/data.json").json()["ses"]["RawMessage"][-1]


def test_a_mail_arrives_to_the_last_octet_as_it_was_built(moto, talk):
    mail = envelope(frame=frame(headers=(("X-Campaign", "spring"),), attachments=(PDF, LOGO)))

    (outcome,) = talk(lambda engine: engine.send([mail]))

    arrived = taken(moto)
    assert outcome == Outcome(Kind.ACCEPTED, "200", provider_id=arrived["id"])
    assert arrived["raw_data"].encode() == Builder()(mail)
    assert (arrived["source"], arrived["destinations"][0]) == ("news@shop.example", "ann@mail.example")


def test_a_sender_that_is_not_verified_is_refused(moto, talk):
    mail = envelope(frame=frame(sender=Mailbox("news@other.example")))

    (outcome,) = talk(lambda engine: engine.send([mail]))

    assert (outcome.kind, outcome.code) == (Kind.MESSAGE, "400 MessageRejected")
    assert outcome.text == "Did not have authority to send from email news@other.example"  # Amazon's are other words


def test_a_wrong_secret_is_the_engines_fault(moto, talk):
    (outcome,) = talk(lambda engine: engine.send([envelope()]), secret=SECRET)

    assert (outcome.kind, outcome.code) == (Kind.ENGINE, "403")
    assert "signature we calculated does not match" in outcome.text


def test_a_check_asks_for_the_identity_of_each_domain(moto, talk):
    moto["client"].post(
        "/moto-api/reset-auth", content=b"inf"
    )  # it takes nobody's signature of a GET, not even boto3's

    found = talk(lambda engine: engine.check(frozenset({"shop.example", "other.example"})))

    # moto has no GetAccount, and gives an identity that it calls verified no right to send.
    assert [each.words.partition(":")[0] for each in found] == [
        "SES did not tell",
        "SES has no identity other.example in eu-west-1",
        "SES has not verified shop.example in eu-west-1",
    ]
