"""The word from the cluster's head to its workers that it stops: finish what is in hand, begin nothing.

One byte of shared memory, made before the workers are forked. No lock: a lock could be lost with a killed process.
"""

from multiprocessing.sharedctypes import RawValue

_flag = RawValue("b", 0)


def begin() -> None:
    """Asks every worker forked from this process to stop soon."""
    _flag.value = 1


def reset() -> None:
    """For a new set of workers."""
    _flag.value = 0


def begun() -> bool:
    return bool(_flag.value)
