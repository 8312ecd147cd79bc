"""What goes wrong with a whole audience. What is wrong with one row is no exception but a `rows.BadRow`.

AudienceError
├── AudienceUnreachable      could not be reached, or broke off: the same attempt may succeed later
│   └── AudienceTooSlow      did not answer within its time limit
└── AudienceRefused          was reached and cannot be used as it is: a person must change something
"""


class AudienceError(Exception):
    """An audience could not be read. Says where, what was wrong, and what to do about it."""

    def __init__(self, where: str, problem: str, remedy: str) -> None:
        super().__init__(f"{where}: {problem.rstrip('.')}. {remedy.rstrip('.')}.")
        self.where = where
        self.problem = problem
        self.remedy = remedy

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        # Exceptions are pickled between the worker's processes, by default with the joined message as sole argument.
        return type(self), (self.where, self.problem, self.remedy)


class AudienceUnreachable(AudienceError):
    """The source could not be reached, or the connection to it broke while it was being read."""


class AudienceTooSlow(AudienceUnreachable):
    """The source did not answer within its time limit."""


class AudienceRefused(AudienceError):
    """The source was reached, but what it holds or is asked for cannot be an audience."""
