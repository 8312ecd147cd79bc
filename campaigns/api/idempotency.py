"""Idempotency-Key: the same request again gets the answer that it got, and does nothing.

A key is one person's or program's, and is kept for KEPT. Its row is written in the transaction that does what was asked
for: of two requests at the same instant one waits for the other's row, and finds the answer there.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from django.core.serializers.json import DjangoJSONEncoder
from django.db import connection
from django.utils import timezone
from rest_framework import serializers, status
from rest_framework.exceptions import APIException
from rest_framework.request import Request

from campaigns.models import IdempotencyKey
from campaigns.models.request import KEPT
from delivery.queue.dialect import instant, table

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
WELL_FORMED = re.compile(r"[\x21-\x7e]{1,200}")


class KeyReused(APIException):
    """The key came with another request before."""

    status_code = status.HTTP_422_UNPROCESSABLE_ENTITY
    default_code = "key_reused"
    default_detail = f"This {HEADER} came with another request before: choose a new one for what is new."


@dataclass(frozen=True, slots=True)
class Key:
    """A key with the request that it came with."""

    owner: str
    value: str
    fingerprint: str

    @classmethod
    def of(cls, request: Request, about: Mapping[str, object]) -> "Key | None":
        """The key of a request; None when it has none. `about` is what the request is about, beside its body. Raises
        ValidationError."""
        value = request.headers.get(HEADER)
        if value is None:
            return None
        if not WELL_FORMED.fullmatch(value):
            raise serializers.ValidationError(
                {HEADER: "A key has 1 to 200 visible ASCII characters without spaces: a UUID, for example."}
            )
        said = json.dumps([about, request.data], sort_keys=True, cls=DjangoJSONEncoder)
        return cls(request.user.get_username(), value, sha256(said.encode()).hexdigest())

    def take(self) -> IdempotencyKey | None:
        """None: the key is new, and now this request's. Else what is known of the first request with it. Part of the
        transaction that does what is asked for. Raises KeyReused."""
        if self._insert():
            return None
        known = IdempotencyKey.objects.get(owner=self.owner, key=self.value)
        if known.created_at < timezone.now() - KEPT:
            known.delete()
            return self.take()
        if known.fingerprint != self.fingerprint:
            raise KeyReused
        return known

    def _insert(self) -> bool:
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {table(IdempotencyKey)} (owner, key, fingerprint, created_at) "  # noqa: S608
                "VALUES (%s, %s, %s, %s) ON CONFLICT (owner, key) DO NOTHING RETURNING id",
                [self.owner, self.value, self.fingerprint, instant(timezone.now())],
            )
            return cursor.fetchone() is not None

    def is_for_run(self, run_id: int) -> None:
        """The request made this run, and its answer is still to come."""
        self._mine().update(run_id=run_id)

    def answered(self, status_code: int, answer: object) -> None:
        """Keeps the answer."""
        self._mine().update(status=status_code, answer=json.dumps(answer, cls=DjangoJSONEncoder))

    def _mine(self):
        return IdempotencyKey.objects.filter(owner=self.owner, key=self.value)
