"""The ASGI entry point. Refuses to serve with a wrong environment."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "outreach.settings")

from django.core.asgi import get_asgi_application

application = get_asgi_application()

from outreach.checks import refuse_to_serve_with_problems  # noqa: E402  (needs the apps)

refuse_to_serve_with_problems()
