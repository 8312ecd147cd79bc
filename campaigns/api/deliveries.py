"""Deliveries: one that did not get through is sent again. It needs the run, so it is here and not delivery's."""

from django.http import Http404
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from campaigns.api.runs import TO_CONTROL, RetryBody
from campaigns.exceptions import CampaignError
from campaigns.replay import by_run, replay_run
from delivery.api.requests import allowed, refusing, who
from delivery.exceptions import DeliveryError
from delivery.models import Delivery


class DeliveryViewSet(GenericViewSet):
    permission_classes = [allowed(to_see="delivery.view_delivery", to_act=TO_CONTROL)]
    lookup_value_regex = r"\d{1,18}"

    @action(detail=True, methods=["post"])
    def replay(self, request: Request, pk: str) -> Response:
        body = RetryBody.of(request)
        for run, ids in by_run([int(pk)]).items():
            with refusing(CampaignError, DeliveryError):
                replay_run(run, who(request), body["why"], states=RetryBody.states(body), ids=ids)
            state = Delivery.objects.values_list("state", flat=True).get(pk=pk)
            return Response({"id": int(pk), "state": state, "run": run.pk})
        raise Http404
