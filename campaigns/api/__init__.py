"""Campaigns over REST, under /api/v1/. The views parse, call the functions that the admin and the commands call, and
answer."""

from rest_framework.routers import SimpleRouter

from campaigns.api.deliveries import DeliveryViewSet
from campaigns.api.runs import RunViewSet
from campaigns.api.schedules import ScheduleViewSet

router = SimpleRouter()
router.register("runs", RunViewSet, basename="run")
router.register("schedules", ScheduleViewSet, basename="schedule")
router.register("deliveries", DeliveryViewSet, basename="delivery")

__all__ = ["router"]
