from django.apps import AppConfig
from django.db.models.signals import post_migrate


class OutreachConfig(AppConfig):
    """The project itself: it joins the apps, and says who may do what over the API."""

    name = "outreach"

    def ready(self) -> None:
        # Before anything else of Django REST framework: its views load the classes that the settings name while they
        # are half loaded themselves, and a package of views that comes in then cannot be.
        import delivery.api  # noqa: F401
        from campaigns.signals import ticked
        from outreach import checks  # noqa: F401  (registers the checks)
        from outreach.access.forget import forget_old
        from outreach.access.roles import complete_roles

        ticked.connect(forget_old)
        # The last of the apps: by then every permission is there.
        post_migrate.connect(complete_roles, sender=self)
