"""What commands share that do a deed for an operator. Exit code: 0 done, 1 refused, 2 usage or configuration error."""

import getpass
from collections.abc import Iterator
from contextlib import contextmanager

from django.core.management.base import BaseCommand, CommandError, SystemCheckError
from django.db import DatabaseError


class DeedCommand(BaseCommand):
    """A command whose errors are for a person: what, where, what to do."""

    def check(self, **kwargs: object) -> None:
        """The system checks: what they find is a configuration error."""
        try:
            super().check(**kwargs)
        except SystemCheckError as error:
            error.returncode = 2
            raise


@contextmanager
def usable_database() -> Iterator[None]:
    """Turns what a database says that is away or empty into a CommandError with exit code 2."""
    try:
        yield
    except DatabaseError as error:
        raise CommandError(
            f"The database cannot be used: {str(error).strip()}. Check DATABASE_URL; a new database needs "
            "`manage.py migrate` first.",
            returncode=2,
        ) from error


def person() -> str:
    """Who typed the command."""
    return getpass.getuser()
