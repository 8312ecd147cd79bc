"""API tokens: made, shown once, revoked. They are never changed, nor deleted: what one was used for is still asked
about when it is long gone."""

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.db.models import ForeignKey
from django.forms import Field, ModelForm
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from unfold.admin import ModelAdmin
from unfold.decorators import action, display

from delivery.admin.redirects import go_to
from outreach.access import tokens
from outreach.admin.token_form import TokenForm, may_be_given_to
from outreach.models import ApiToken

COLOURS = {"valid": "success", "expired": "warning", "revoked": "danger", "user not active": "warning"}
WORDS = {None: "valid", "This token was revoked.": "revoked", "This token has expired.": "expired"}


@admin.register(ApiToken)
class ApiTokenAdmin(ModelAdmin):
    form = TokenForm
    list_display = ("name", "user", "shown_prefix", "shown_scopes", "last_used_at", "expires_at", "state")
    list_select_related = ("user",)
    search_fields = ("name", "prefix")
    search_help_text = "A name, or how the token begins"
    empty_hint = (
        "A program shows a token in place of a login: Authorization: Bearer outreach_… It may do what its user may, "
        "within its scopes."
    )
    actions_detail = ("revoke",)

    def get_fields(self, request: HttpRequest, obj: ApiToken | None = None) -> tuple[str, ...]:
        if obj is None:
            return ("name", "user", "scopes", "expires_at")
        made = ("created_by", "created_at", "last_used_at", "expires_at", "revoked_by", "revoked_at")
        return ("name", "user", "state", "shown_prefix", "shown_scopes", *made)

    def get_readonly_fields(self, request: HttpRequest, obj: ApiToken | None = None) -> tuple[str, ...]:
        return self.get_fields(request, obj) if obj else ()

    def has_delete_permission(self, request: HttpRequest, obj: ApiToken | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: ApiToken | None = None) -> bool:
        return False

    def has_revoke_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        return request.user.has_perm("outreach.change_apitoken")

    def formfield_for_foreignkey(self, db_field: ForeignKey, request: HttpRequest, **kwargs: object) -> Field:
        if db_field.name == "user":
            kwargs |= {"queryset": may_be_given_to(request), "initial": request.user.pk}
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    # ---- made, and shown once ----

    def save_model(self, request: HttpRequest, obj: ApiToken, form: ModelForm, change: bool) -> None:
        made = tokens.make(obj.name, obj.user, obj.scopes, by=request.user.get_username(), expires_at=obj.expires_at)
        obj.pk, obj.prefix, request.made = made.token.pk, made.token.prefix, made

    def response_add(self, request: HttpRequest, obj: ApiToken, post_url_continue: str | None = None) -> HttpResponse:
        """The page that shows it. An answer to the form and no page of its own: nothing can be opened a second time,
        and nothing is kept in between."""
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "The new token",
            "token": request.made.token,
            "text": request.made.text,
            "list_url": reverse("admin:outreach_apitoken_changelist"),
        }
        response = TemplateResponse(request, "admin/outreach/apitoken/made.html", context)
        response.headers["Cache-Control"] = "no-store"
        return response

    # ---- revoked ----

    @action(
        description="Revoke",
        icon="key_off",
        permissions=["revoke"],
        dialog={
            "title": "Revoke this token?",
            "description": "From now on it opens nothing, in no process. This cannot be undone.",
            "form_class": None,
            "form_submit_text": "Revoke",
        },
    )
    def revoke(self, request: HttpRequest, form: object, object_id: str) -> HttpResponse:
        token = self.get_object(request, unquote(object_id))
        if token is None:
            raise Http404
        if tokens.revoke(token, request.user.get_username(), timezone.now()):
            self.log_change(request, token, "Revoked.")
            messages.success(request, "The token is revoked.")
        else:
            messages.error(request, f"It was revoked before, by {token.revoked_by}.")
        return go_to(request, reverse("admin:outreach_apitoken_change", args=[token.pk]))

    # ---- what is shown ----

    @display(description="State", label=COLOURS)
    def state(self, token: ApiToken) -> str:
        return WORDS.get(token.why_invalid(timezone.now()), "user not active")

    @display(description="Begins with")
    def shown_prefix(self, token: ApiToken) -> str:
        return f"{token.prefix}…"

    @display(description="Scopes")
    def shown_scopes(self, token: ApiToken) -> str:
        return ", ".join(token.scopes)
