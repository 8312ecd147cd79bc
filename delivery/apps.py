from django.apps import AppConfig
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created


class DeliveryConfig(AppConfig):
    """The durable outbound queue and its engines."""

    name = "delivery"

    def ready(self) -> None:
        connection_created.connect(_tell_the_planner)


def _tell_the_planner(sender: type, connection: BaseDatabaseWrapper, **kwargs: object) -> None:
    """The rows that a worker asks for by key were written a moment ago and are in memory. PostgreSQL's default, made
    for rotating disks, takes looking them up for dear, and reads a table of ten thousand rows as a whole instead."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET random_page_cost = 1.1")
