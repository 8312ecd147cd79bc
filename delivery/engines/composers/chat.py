"""An OpenAI-compatible chat API without I/O: a prompt becomes a request, an answer becomes words or an Outcome.

Decides what each answer means. What is the settings' fault fails for every prompt, so it is the engine's; what is this
prompt's fault is the message's, and the template is used; all else may pass.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from difflib import get_close_matches

from delivery.core.answer import Answer, Row, classify_words, objects, plain, told_to_wait
from delivery.core.envelope import Kind, Outcome
from delivery.core.meaning import ENGINE, TROUBLE
from delivery.engines.base import Finding
from delivery.engines.composers.base import Composed, Prompt
from delivery.engines.composers.written import written
from delivery.http import Call

MAX_TOKENS = "max_tokens"  # what most servers know
MAX_COMPLETION_TOKENS = "max_completion_tokens"  # what OpenAI's own newer models ask for, refusing the other

# By `error.code`, else `error.type`. A 429 with one of the first is no matter of pace: somebody has to pay.
_SPENT = (
    "insufficient_quota",
    "credit_balance_exhausted",
    "billing_hard_limit_reached",
    "billing_not_active",
    "organization_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
    "project_spend_limit_exceeded",
)
# Settings of this engine that its model does not take.
_SETTINGS = ("unsupported_parameter", "unsupported_value", "model_not_found", "invalid_model", "unknown_parameter")
ROWS = (
    Row(ENGINE, codes=_SPENT),
    Row(ENGINE, codes=_SETTINGS),
    Row(ENGINE, statuses=(400,), words=r"unsupported (parameter|value)|unrecognized request argument"),
    # The address and the model are settings: every prompt would be answered so.
    Row(ENGINE, statuses=(404, 405)),
    Row(TROUBLE, statuses=(409,)),  # the same request is still under way
)
# Reasoning models whose server does not part what they think from what they say put it in front.
_THOUGHTS = re.compile(r"\A\s*<think>.*?(</think>|\Z)", re.DOTALL | re.IGNORECASE)
MOST_NAMES = 5000  # of models, that are looked through


@dataclass(frozen=True, slots=True)
class ChatApi:
    """One model at one address. `key` is "" where none is asked for; `temperature` is None for the model's own;
    `limit_field` is what the token limit is called there."""

    base_url: str
    model: str
    key: str = field(default="", repr=False)
    system: str = ""
    temperature: float | None = None
    max_tokens: int = 0
    limit_field: str = MAX_TOKENS

    def call(self, prompt: Prompt) -> Call:
        """The request for the words."""
        system = prompt.system or self.system
        messages = [{"role": "system", "content": system}] if system else []
        body: dict[str, object] = {
            "model": self.model,
            "messages": [*messages, {"role": "user", "content": prompt.user}],
        }
        if self.max_tokens:
            body[self.limit_field] = self.max_tokens
        if self.temperature is not None:
            body["temperature"] = self.temperature
        headers = self._headers() | {"Content-Type": "application/json"}
        if prompt.key:
            headers["Idempotency-Key"] = prompt.key
        return Call("POST", f"{self.base_url}/chat/completions", headers, json.dumps(body).encode())

    def _headers(self) -> dict[str, str]:
        authorization = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return {"Accept": "application/json", **authorization}

    def read(self, answer: Answer, now: datetime) -> Composed:
        """The words of an answer, or what it says instead."""
        told = answer.fields()
        error = _error(told)
        if not answer.is_success or error:
            return Composed(_refusal(answer, error, now))
        choice = next(iter(objects(told.get("choices"))), None)
        if choice is None:
            # A login page, a proxy's excuse: it says nothing about the prompt.
            text = f"The answer is no chat completion: {answer.words()}"
            return Composed(Outcome(Kind.TRANSIENT, str(answer.status), text))
        return self._read_choice(choice, answer, now)

    def _read_choice(self, choice: Mapping[str, object], answer: Answer, now: datetime) -> Composed:
        code = str(answer.status)
        if error := _error(choice):  # as routers before several vendors say it
            return Composed(_refusal(answer, error, now))
        reason = plain(choice.get("finish_reason"))
        message = choice.get("message")
        message = message if isinstance(message, Mapping) else {}
        if refusal := plain(message.get("refusal")):
            return Composed(Outcome(Kind.MESSAGE, code, f"The model refused: {refusal}"))
        if reason == "content_filter":
            return Composed(Outcome(Kind.MESSAGE, code, "The service's content filter took words out of the answer."))
        if reason == "length":
            # Half a mail is none. Another try would meet the same limit, and cost as much.
            limit = f"the limit of {self.max_tokens:,} tokens" if self.max_tokens else "the model's token limit"
            text = f"The answer was cut off at {limit}: raise it, or ask for fewer words in the prompt."
            return Composed(Outcome(Kind.MESSAGE, code, text))
        return written(_THOUGHTS.sub("", _content(message.get("content"))), code)

    # ---- the check ----

    def models(self) -> Call:
        """The question which models there are: free, and answered only to who has a good key."""
        return Call("GET", f"{self.base_url}/models", self._headers())

    def judge_models(self, answer: Answer) -> list[Finding]:
        """What the answer to `models` says is wrong."""
        if answer.status in (401, 403, 407):
            said = _words(answer, _error(answer.fields()))
            return [Finding(f"The key is refused: {answer.status} {said}".rstrip())]
        names = [name for each in objects(answer.fields().get("data")) if (name := plain(each.get("id")))]
        if not answer.is_success or not names:
            text = f"Whether the model “{self.model}” is there shows with the first text: its server lists no models"
            return [Finding(f"{text} ({answer.status}).", certain=False)]
        if self.model in names:
            return []
        # Not certain: servers take short names, and routers list only what they recommend.
        close = get_close_matches(self.model, names[:MOST_NAMES], 1)
        hint = f" Did you mean “{close[0]}”?" if close else f" There is, for instance, “{names[0]}”."
        return [Finding(f"The server does not list a model “{self.model}”.{hint}", certain=False)]


def _content(content: object) -> str:
    """The text of a message; some servers give it in parts."""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in objects(content) if isinstance(part.get("text"), str))


def _error(told: Mapping[str, object]) -> Mapping[str, object]:
    """The `error` of an answer, which is an object or, at some servers, only words."""
    error = told.get("error")
    if isinstance(error, Mapping):
        return error
    return {"message": error} if isinstance(error, str) and error else {}


def _refusal(answer: Answer, error: Mapping[str, object], now: datetime) -> Outcome:
    status = answer.status
    code, kind = plain(error.get("code")), plain(error.get("type"))
    if answer.is_success:
        # An error in an answer that says 200: its code is what the status should have been.
        status = int(code) if code.isdecimal() and 400 <= int(code) <= 599 else 500
    # The type says it where there are new codes for the same trouble.
    known = kind if kind.lower() in _SPENT else (code or kind)
    outcome = classify_words(ROWS, status, known, _words(answer, error), wait=_wait(answer, now))
    return replace(outcome, kind=Kind.TRANSIENT) if outcome.kind is Kind.UNKNOWN else outcome


def _words(answer: Answer, error: Mapping[str, object]) -> str:
    told = answer.fields()  # some servers put their words beside no `error`
    return plain(error.get("message")) or plain(told.get("message")) or plain(told.get("detail")) or answer.words()


def _wait(answer: Answer, now: datetime) -> timedelta | None:
    """OpenAI says it in milliseconds, too, and more exactly."""
    milliseconds = answer.headers.get("retry-after-ms", "")
    if milliseconds.isdecimal() and 0 < int(milliseconds) <= 86_400_000:
        return timedelta(milliseconds=int(milliseconds))
    return told_to_wait(answer.headers, now, ("retry-after",))
