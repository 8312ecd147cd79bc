"""The unsubscribe page, and what mail programs post to its address (RFC 8058)."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from delivery.models import Delivery, SuppressionReason
from delivery.suppression import suppress
from delivery.unsubscribe import delivery_of


# Without CSRF check: the mail program has no session, and the token in the address is the proof (RFC 8058 §3.1, §3.2).
@csrf_exempt
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def unsubscribe(request: HttpRequest, token: str) -> HttpResponse:
    """A page with a button on GET, which changes nothing: scanners follow every link. A POST unsubscribes, once or
    again, by the button or by the mail program's one click."""
    delivery_id = delivery_of(token)
    delivery = Delivery.objects.select_related("batch", "message").filter(pk=delivery_id or 0).first()
    if delivery is None:
        return render(request, "unsubscribe/unknown.html", status=404)
    context = {"delivery": delivery, "sender": delivery.message.from_name or delivery.message.from_address}
    if request.method != "POST":
        return render(request, "unsubscribe/ask.html", context)
    one_click = request.POST.get("List-Unsubscribe") == "One-Click"
    if not one_click and request.POST.get("confirm") not in ("this", "all"):
        return render(request, "unsubscribe/ask.html", context, status=400)
    everything = request.POST.get("confirm") == "all"
    source = f"{'one click' if one_click else 'unsubscribe page'}, delivery {delivery.pk}"
    scope = "" if everything else delivery.batch.scope
    suppress(delivery.address, SuppressionReason.UNSUBSCRIBE, scope=scope, source=source)
    if one_click:
        return HttpResponse("Unsubscribed.", content_type="text/plain")
    return render(request, "unsubscribe/done.html", context | {"everything": everything})
