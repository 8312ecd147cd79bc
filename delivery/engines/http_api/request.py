"""What is sent for a mail, or for several: URL, headers and body, compiled once from what the operator wrote."""

from collections.abc import Sequence

from delivery.core.envelope import Envelope
from delivery.engines.http_api.body import BodyTemplate
from delivery.engines.http_api.fields import ATTACHMENTS, SECRET, fields_of
from delivery.engines.http_api.headers import HeaderTemplates
from delivery.engines.http_api.url import UrlTemplate
from delivery.templating import Budget, Limits, TemplateProblem


class RequestTemplate:
    """See the module. `secret` is a credential that templates may place. `batch`: the body is for several mails, and
    URL and headers belong to none of them."""

    def __init__(
        self, url: UrlTemplate, headers: HeaderTemplates, body: BodyTemplate, secret: str = "", *, batch: bool = False
    ) -> None:
        self._url = url
        self._headers = headers
        self._body = body
        self._batch = batch
        self._secret = {SECRET: secret}
        self._names = url.names | headers.names | body.names

    @property
    def carries_attachments(self) -> bool:
        return ATTACHMENTS in self._names

    def build(self, envelopes: Sequence[Envelope]) -> tuple[str, dict[str, str], bytes]:
        """Raises ValueError, with a sentence, for what one of them holds."""
        try:
            filled = [(fields_of(each, self._names) | self._secret, Budget(Limits())) for each in envelopes]
            bodies = [self._body.record(data, budget) for data, budget in filled]
            data, budget = (self._secret, Budget(Limits())) if self._batch else filled[0]
            body = self._body.joined(bodies) if self._batch else bodies[0]
            return self._url.render(data, budget), self._headers.render(data, budget), body
        except TemplateProblem as problem:
            raise ValueError(self._without_secret(problem.message)) from None

    def _without_secret(self, words: str) -> str:
        """A filter that refuses a value says which."""
        return words.replace(self._secret[SECRET], "…") if self._secret[SECRET] else words
