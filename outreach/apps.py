from django.apps import AppConfig


class OutreachConfig(AppConfig):
    """The project itself: it joins the apps and holds no models."""

    name = "outreach"

    def ready(self) -> None:
        from outreach import checks  # noqa: F401  (registers the checks)
