"""One request to the server under test, over connections that stay open, and what was said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx

from delivery.http import Call, Client, Unreachable
from delivery.http.networks import IPNetwork
from delivery.http.transport import AiohttpTransport

CONNECT = 10.0  # seconds
# What there is instead of a status.
NO_CONNECTION, TIMEOUT, BROKEN_OFF = "no connection", "timeout", "connection broken off"


@dataclass(frozen=True, slots=True)
class Said:
    """An answer; or why there is none, in place of its status."""

    status: int | str
    content: bytes = b""


class Caller:
    """Asks one server. `patience`: seconds for each answer."""

    def __init__(self, url: str, token: str, networks: Sequence[IPNetwork], patience: float) -> None:
        self._url = url
        self._headers: Mapping[str, str] = {
            "Accept": "application/json",
            "Content-Type": "application/json",
            **({"Authorization": f"Bearer {token}"} if token else {}),
        }
        self._patience = patience
        self._client = Client(AiohttpTransport(tuple(networks)), connect=CONNECT)

    async def post(self, path: str, body: bytes) -> Said:
        return await self._say(Call("POST", self._url + path, self._headers, body))

    async def get(self, path: str) -> Said:
        return await self._say(Call("GET", self._url + path, self._headers))

    async def close(self) -> None:
        await self._client.close()

    async def _say(self, call: Call) -> Said:
        try:
            answer = await self._client.exchange(call, self._patience)
        except Unreachable as trouble:
            return Said(_kind(trouble), str(trouble).encode())
        return Said(answer.status, answer.body)


def _kind(trouble: Unreachable) -> str:
    match trouble.__cause__:
        case None | httpx.TimeoutException():
            return TIMEOUT
        case httpx.ConnectError():
            return NO_CONNECTION
        case _:
            return BROKEN_OFF
