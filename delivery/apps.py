from django.apps import AppConfig


class DeliveryConfig(AppConfig):
    """The durable outbound queue and its engines."""

    name = "delivery"
