"""What several tests of delivery listen to."""

import logging
from collections.abc import Callable, Iterator

import pytest


@pytest.fixture
def heard():
    """What `batch_done` said: the counts, by batch."""
    from delivery.signals import batch_done

    news = []

    def hear(sender, *, batch_id, counts, **said):
        news.append((batch_id, counts))

    batch_done.connect(hear)
    yield news
    batch_done.disconnect(hear)


@pytest.fixture
def warnings(caplog) -> Iterator[Callable[[str], int]]:
    """How many lines of the worker's log begin with some words."""
    # It does not propagate to where pytest listens.
    logger = logging.getLogger("delivery")
    logger.addHandler(caplog.handler)
    yield lambda words: sum(message.startswith(words) for message in caplog.messages)
    logger.removeHandler(caplog.handler)
