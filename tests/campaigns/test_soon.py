"""Wake-ups for many who ask at the same time: the first at once, the others together."""

import threading
import time

import pytest

from campaigns.soon import Soon

pytestmark = pytest.mark.django_db(transaction=True)

PAUSE = 0.2
PATIENCE = 10.0


class Bell:
    """Counts how often it rings, and when."""

    def __init__(self) -> None:
        self.rung: list[tuple[float, tuple[object, ...]]] = []
        self._again = threading.Semaphore(0)

    def ring(self, *arguments: object) -> None:
        self.rung.append((time.monotonic(), arguments))
        self._again.release()

    def heard(self, times: int) -> bool:
        return all(self._again.acquire(timeout=PATIENCE) for _ in range(times))


def test_the_first_is_served_at_once_by_the_thread_that_asks():
    bell = Bell()

    Soon(bell.ring, PAUSE).ask(7)

    assert [arguments for _, arguments in bell.rung] == [(7,)]


def test_all_who_ask_within_a_moment_are_served_together_when_it_is_over():
    bell = Bell()
    soon = Soon(bell.ring, PAUSE)

    threads = [threading.Thread(target=soon.ask) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert bell.heard(2)
    (first, _), (second, _) = bell.rung
    assert second - first >= PAUSE * 0.9


def test_who_asks_after_a_deed_is_served_by_a_later_one():
    bell = Bell()
    soon = Soon(bell.ring, PAUSE)
    soon.ask()
    for _ in range(3):
        asked_at = time.monotonic()
        soon.ask()
        while bell.rung[-1][0] < asked_at:
            assert bell.heard(1)

    assert all(later[0] - earlier[0] >= PAUSE * 0.9 for earlier, later in zip(bell.rung, bell.rung[1:], strict=False))


def test_a_deed_that_fails_does_not_keep_the_next_from_being_done():
    bell = Bell()

    def fail_once() -> None:
        bell.ring()
        if len(bell.rung) == 1:
            raise ValueError("the broker is away")

    soon = Soon(fail_once, PAUSE)
    with pytest.raises(ValueError, match="away"):
        soon.ask()
    soon.ask()

    assert bell.heard(2)
