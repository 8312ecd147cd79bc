"""OAuth 2 client credentials (RFC 6749 §4.4): a token, asked for before it is needed and kept until shortly before it
expires.

Grant knows what is asked and what the answer means; TokenClient does the asking, once for all who wait.
"""

import asyncio
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import quote_plus, urlencode

from delivery.core.answer import Answer, plain
from delivery.http import Call, Client, Unreachable

PATIENCE = 20.0  # seconds for the token server's answer
UNSTATED_LIFE = timedelta(minutes=5)  # RFC 6749 §5.1: a server may leave out how long a token is good
MARGIN = timedelta(seconds=60)  # before the end, and no more than a tenth of the token's life


@dataclass(frozen=True, slots=True)
class Token:
    """An access token and when to get another one."""

    text: str = field(repr=False)
    good_until: datetime


@dataclass(frozen=True, slots=True)
class Grant:
    """What the token server is told. `in_body`: the client's id and secret go in the form, not in Basic (§2.3.1)."""

    url: str
    client_id: str
    client_secret: str = field(repr=False)
    scope: str = ""
    in_body: bool = False

    def call(self) -> Call:
        """The request for a token."""
        form = {"grant_type": "client_credentials"} | ({"scope": self.scope} if self.scope else {})
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        if self.in_body:
            form |= {"client_id": self.client_id, "client_secret": self.client_secret}
        else:
            headers["Authorization"] = f"Basic {self.basic}"
        return Call("POST", self.url, headers, urlencode(form).encode())

    @property
    def basic(self) -> str:
        """Id and secret for Basic; both are encoded as in a form before (§2.3.1)."""
        pair = f"{quote_plus(self.client_id)}:{quote_plus(self.client_secret)}"
        return b64encode(pair.encode()).decode()

    def read(self, answer: Answer, now: datetime) -> Token:
        """The token in an answer. Raises Unreachable when there is none."""
        fields = answer.fields()
        if not answer.is_success:
            words = " ".join(filter(None, (plain(fields.get(name)) for name in ("error", "error_description"))))
            patient = answer.status in (408, 425, 429) or answer.status >= 500
            raise Unreachable(
                f"the token server answered {answer.status} {words or answer.words()}".rstrip(),
                sent=False,
                hopeless=not patient,
            )
        text = fields.get("access_token")
        kind = plain(fields.get("token_type") or "bearer")
        if not isinstance(text, str) or not text or not (text.isascii() and text.isprintable()):
            raise Unreachable("the token server answered without a token", sent=False, hopeless=True)
        if kind.lower() != "bearer":
            raise Unreachable(f"the token server gave a {kind} token, not a bearer token", sent=False, hopeless=True)
        life = _life(fields.get("expires_in"))
        return Token(text, now + life - min(MARGIN, life / 10))


def _life(stated: object) -> timedelta:
    """`expires_in` is a number of seconds; some write it as text."""
    try:
        seconds = float(stated)  # type: ignore[arg-type]
        return timedelta(seconds=seconds) if 0 < seconds < 10**8 else UNSTATED_LIFE
    except (TypeError, ValueError):
        return UNSTATED_LIFE


class TokenClient:
    """A Client, but for this: its calls carry a token.

    A call that is answered 401 is made once more with a fresh token: it was refused, so nothing is doubled.
    """

    def __init__(self, client: Client, grant: Grant, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._client = client
        self._grant = grant
        self._now = now
        self._token: Token | None = None
        self._asking: asyncio.Task[Token] | None = None

    async def exchange(self, call: Call, timeout: float) -> Answer:
        """As `Client.exchange`. Without a token nothing is sent: then Unreachable says so."""
        token = await self.token()
        answer = await self._client.exchange(_with(token, call), timeout)
        if answer.status == 401:
            token = await self.token(instead_of=token)
            answer = await self._client.exchange(_with(token, call), timeout)
        # Some APIs repeat what they refuse.
        return replace(answer, body=answer.body.replace(token.text.encode(), b"\xe2\x80\xa6"))

    async def token(self, instead_of: Token | None = None) -> Token:
        """A token that is good now. However many want one, one request is under way. Raises Unreachable."""
        held = self._token
        if held and held is not instead_of and self._now() < held.good_until:
            return held
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._ask())
            self._asking.add_done_callback(self._answered)
        # One who waits may be cancelled; the others still want the token.
        return await asyncio.shield(self._asking)

    async def _ask(self) -> Token:
        try:
            answer = await self._client.exchange(self._grant.call(), PATIENCE)
        except Unreachable as error:  # whatever became of this request, the mail was not sent
            words = f"the token server: {error}"
            raise Unreachable(words, sent=False, hopeless=error.hopeless) from error
        self._token = self._grant.read(answer, self._now())
        return self._token

    def _answered(self, task: "asyncio.Task[Token]") -> None:
        self._asking = None
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not complain when nobody waits any more

    async def close(self) -> None:
        """As `Client.close`."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])
        await self._client.close()


def _with(token: Token, call: Call) -> Call:
    return replace(call, headers={**call.headers, "Authorization": f"Bearer {token.text}"})
