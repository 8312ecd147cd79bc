"""An empty Django view without any middleware: the most that a view can be asked for by the same gunicorn."""

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse
from django.urls import path

if not settings.configured:
    settings.configure(SECRET_KEY="only-for-a-benchmark", ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1"])
    django.setup()


def empty(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


urlpatterns = [path("", empty)]
application = WSGIHandler()
