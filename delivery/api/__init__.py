"""Delivery over REST, under /api/v1/. The views parse, call the functions that the admin and the commands call, and
answer."""

from rest_framework.routers import SimpleRouter

from delivery.api.deliveries import DeliveryViewSet
from delivery.api.engines import EngineViewSet

router = SimpleRouter()
router.register("engines", EngineViewSet, basename="engine")
router.register("deliveries", DeliveryViewSet, basename="delivery")

__all__ = ["router"]
