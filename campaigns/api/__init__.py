"""Campaigns over REST, under /api/v1/. The views parse, call the functions that the admin and the commands call, and
answer."""

from rest_framework.routers import SimpleRouter

from campaigns.api.audiences import AudienceViewSet
from campaigns.api.deliveries import DeliveryViewSet
from campaigns.api.runs import RunViewSet
from campaigns.api.schedules import ScheduleViewSet
from campaigns.api.workflows import WorkflowViewSet

router = SimpleRouter()
router.register("audiences", AudienceViewSet, basename="audience")
router.register("workflows", WorkflowViewSet, basename="workflow")
router.register("runs", RunViewSet, basename="run")
router.register("schedules", ScheduleViewSet, basename="schedule")
router.register("deliveries", DeliveryViewSet, basename="delivery")

__all__ = ["router"]
