from django.apps import AppConfig


class CampaignsConfig(AppConfig):
    """Workflows, templates, audiences and runs: who gets what, and when."""

    name = "campaigns"

    def ready(self) -> None:
        from campaigns import receivers  # noqa: F401  (joins delivery's signals)
