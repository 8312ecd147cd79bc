"""Where an action with a dialog leads."""

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect


def go_to(request: HttpRequest, url: str) -> HttpResponse:
    """Leads the browser on. htmx, which sends the dialog's form, follows a 302 by itself and would put the whole page
    into the dialog."""
    if request.headers.get("HX-Request"):
        return HttpResponse(headers={"HX-Redirect": url})
    return HttpResponseRedirect(url)
