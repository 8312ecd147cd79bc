"""Every address of the application."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

from campaigns.api import urls as campaigns
from delivery.api import router as delivery
from delivery.views import unsubscribe
from outreach import health, metrics
from outreach.access.api import router as access

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
    path("api/v1/schema/", SpectacularAPIView.as_view(), name="schema"),
    path("api/v1/docs/", SpectacularSwaggerSplitView.as_view(url_name="schema"), name="docs"),
    path("api/v1/", include(([*campaigns, *delivery.urls, *access.urls], "api"))),
    path("u/<str:token>", unsubscribe, name="unsubscribe"),
    path("health", health.health, name="health"),
    path("health/live", health.live, name="health-live"),
    path("health/ready", health.ready, name="health-ready"),
    path("metrics", metrics.page, name="metrics"),
]
