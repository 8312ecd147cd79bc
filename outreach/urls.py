"""Every address of the application."""

from django.contrib import admin
from django.urls import path
from django.views.generic import RedirectView

from delivery.views import unsubscribe

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
    path("u/<str:token>", unsubscribe, name="unsubscribe"),
]
