"""The HTTP API as a working engine: the driver of all providers, with another `check`.

Whatever is asked of an unknown API could be a mail, so nothing is: it is connected to, and where there is a token to
get, that is fetched. What the API thinks of a credential or a record shows with the first mail.
"""

from collections.abc import Iterable

import httpx

from delivery.conf import conf
from delivery.engines.base import Finding
from delivery.engines.http_api.api import HttpApi
from delivery.engines.http_api.authentication import Proof
from delivery.engines.http_api.oauth import Grant, TokenClient
from delivery.engines.provider import CHECK_PATIENCE, ProviderEngine
from delivery.http import Client, Unreachable


class HttpApiEngine(ProviderEngine):
    """See the module. `origin` is scheme and host of the API; `grant` says where calls get their token, if they do."""

    def __init__(
        self,
        provider: HttpApi,
        *,
        origin: str,
        concurrency: int,
        timeout: float,
        secrets: Iterable[str] = (),
        grant: Grant | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        client = Client(transport)
        self._tokens = TokenClient(client, grant) if grant else None
        self._origin = origin
        self._proof: Proof = provider.proof
        super().__init__(
            provider,
            concurrency=concurrency,
            timeout=timeout,
            secrets=secrets,
            client=self._tokens or client,
        )

    async def check(self, domains: frozenset[str] = frozenset()) -> list[Finding]:
        """What is wrong as far as it can be found without a mail; [] when the API is reached and the token is there."""
        from delivery.http.reach import reach  # brings aiohttp, see delivery.http.client

        host = httpx.URL(self._origin).host
        try:
            await reach(self._origin, CHECK_PATIENCE, conf().allowed_networks)
            if self._tokens:
                await self._tokens.token()
        except Unreachable as error:
            return [Finding(self._scrubbed(f"{host}: {error}"), certain=error.hopeless)]
        if self._proof.headers or self._proof.query:
            words = f"{host} answers. Whether it takes the credential shows only with the first mail: nothing was sent."
            return [Finding(words, certain=False)]
        return []
