"""Delivery over REST, under /api/v1/. The views parse, call the functions that the admin and the commands call, and
answer. Deliveries and composed texts are registered by whoever adds to them what needs a run."""

from rest_framework.routers import SimpleRouter

from delivery.api.engine_kinds import EngineKindViewSet
from delivery.api.engines import EngineEventViewSet, EngineViewSet
from delivery.api.pools import PoolViewSet
from delivery.api.suppressions import SuppressionViewSet

router = SimpleRouter()
router.register("engines", EngineViewSet, basename="engine")
router.register(r"engines/(?P<engine>[-\w]+)/events", EngineEventViewSet, basename="engine-event")
router.register("engine-kinds", EngineKindViewSet, basename="engine-kind")
router.register("pools", PoolViewSet, basename="pool")
router.register("suppressions", SuppressionViewSet, basename="suppression")

__all__ = ["router"]
