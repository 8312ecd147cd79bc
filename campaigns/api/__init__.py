"""Campaigns over REST, under /api/v1/. The views parse, call the functions that the admin and the commands call, and
answer."""

from django.urls import path, re_path
from rest_framework.routers import SimpleRouter

from campaigns.api.audiences import AudienceViewSet
from campaigns.api.contact_lists import ContactListViewSet, ContactViewSet
from campaigns.api.deliveries import CompositionViewSet, DeliveryViewSet
from campaigns.api.exports import urls as exports
from campaigns.api.imports import ImportsOfListViewSet, ImportViewSet
from campaigns.api.messages import MessagesView
from campaigns.api.requests import RunRequestViewSet
from campaigns.api.runs import RunViewSet
from campaigns.api.schedules import ScheduleViewSet
from campaigns.api.templates import TemplateViewSet
from campaigns.api.trigger import TriggerView, WorkflowRunsView
from campaigns.api.webhooks import CallbackViewSet, WebhookViewSet
from campaigns.api.workflows import WorkflowViewSet

router = SimpleRouter()
router.register("contact-lists", ContactListViewSet, basename="contact-list")
router.register(r"contact-lists/(?P<contact_list_pk>[-\w]+)/contacts", ContactViewSet, basename="contact")
router.register(r"contact-lists/(?P<contact_list_pk>[-\w]+)/imports", ImportsOfListViewSet, basename="import-of-list")
router.register("imports", ImportViewSet, basename="import")
router.register("audiences", AudienceViewSet, basename="audience")
router.register("templates", TemplateViewSet, basename="template")
router.register("workflows", WorkflowViewSet, basename="workflow")
router.register("runs", RunViewSet, basename="run")
router.register("requests", RunRequestViewSet, basename="request")
router.register("schedules", ScheduleViewSet, basename="schedule")
router.register("deliveries", DeliveryViewSet, basename="delivery")
router.register("compositions", CompositionViewSet, basename="composition")
router.register("webhooks", WebhookViewSet, basename="webhook")
router.register("callbacks", CallbackViewSet, basename="callback")

urls = [
    path("workflows/<slug:pk>/runs/", WorkflowRunsView.as_view(), name="workflow-runs"),
    re_path(r"^trigger/?$", TriggerView.as_view(), name="trigger"),
    path("messages/", MessagesView.as_view(), name="messages"),
    *exports,
    *router.urls,
]

__all__ = ["urls"]
