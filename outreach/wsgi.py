"""The WSGI entry point. Refuses to serve with a wrong environment."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "outreach.settings")

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()

from outreach.checks import refuse_to_serve_with_problems  # noqa: E402  (needs the apps)

refuse_to_serve_with_problems()
