"""What all workers share about engines: token buckets, circuits, paces. Kept in one of three places, all with the same
promises (`tests/delivery/test_shared.py` holds them to one suite):

base      the interface        database  the default
redis     where REDIS_URL says     memory    for one process: tests and the simulator
"""

from functools import cache

from delivery.conf import conf
from delivery.shared.base import Drawn, Shared, SharedAway
from delivery.shared.database import DatabaseShared

__all__ = ["Drawn", "Shared", "SharedAway", "shared"]


def shared() -> Shared:
    """The one that the settings choose."""
    return _open(conf().redis_url)


@cache
def _open(redis_url: str) -> Shared:
    if not redis_url:
        return DatabaseShared()
    from delivery.shared.redis import RedisShared  # redis is imported where it is used

    return RedisShared(redis_url)
