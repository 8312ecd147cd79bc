"""Audiences: set up and changed, and refused where their settings cannot work, in the words of the admin. Files are
uploaded there alone.

A credential goes in and never comes out: a stored one is kept when none is given, is forgotten when nothing needs it,
and does not go to whom the URL now leads.
"""

from collections.abc import Mapping
from copy import copy

from django.core.exceptions import ValidationError
from rest_framework import serializers

from campaigns.api.setting_up import SettingUpViewSet, StrictSerializer, writing
from campaigns.audiences.http_settings import CREDENTIAL
from campaigns.audiences.http_url import ELSEWHERE, leads_elsewhere
from campaigns.models import Audience, AudienceKind
from delivery.exceptions import SecretUnreadable
from delivery.secrets import Sealed

ONLY_HTTP = "Only an audience of the kind http has this: leave it empty."
NO_USE = 'It would go with no request: say how it is to go in the options, such as "auth": "bearer".'

SHOWN = Audience.objects.select_related("contact_list", "upload")


class AudienceSerializer(StrictSerializer):
    """An audience. `options` are written as a whole. `file`: the name of the one that was uploaded in the admin."""

    contact_list_slug = serializers.CharField(source="contact_list.slug", read_only=True, default=None)
    credential = serializers.CharField(write_only=True, required=False, allow_blank=True, max_length=4000)
    has_credential = serializers.SerializerMethodField()
    file = serializers.SerializerMethodField()

    class Meta:
        model = Audience
        fields = (
            "id",
            "name",
            "slug",
            "kind",
            "contact_list",
            "contact_list_slug",
            "file",
            "delimiter",
            "encoding",
            "connection",
            "query",
            "options",
            "credential",
            "has_credential",
            "address_field",
            "name_field",
            "key_field",
            "depends_field",
            "deadline_field",
            "created_at",
            "changed_at",
        )
        read_only_fields = ("created_at", "changed_at")
        extra_kwargs = {"delimiter": {"trim_whitespace": False}}  # a tab is one
        validators = []

    def get_has_credential(self, audience: Audience) -> bool:
        return bool(audience.secrets)

    def get_file(self, audience: Audience) -> str | None:
        return audience.upload.filename if hasattr(audience, "upload") else None

    def validate(self, given: dict[str, object]) -> dict[str, Audience]:
        credential = given.pop(CREDENTIAL, "")
        before = self.instance or Audience()
        audience = copy(before)
        for field, value in given.items():
            setattr(audience, field, value)
        if audience.kind == AudienceKind.HTTP:
            _settle_http(audience, before, credential)
        else:
            _settle_other(audience, before, {CREDENTIAL: credential, "options": given.get("options")})
        try:
            audience.full_clean()
        except ValidationError as refusal:
            raise serializers.ValidationError(_by_place(refusal)) from refusal
        return {"audience": audience}

    def create(self, made: dict[str, Audience]) -> Audience:
        return _write(**made)

    def update(self, instance: Audience, made: dict[str, Audience]) -> Audience:
        return _write(**made)


def _settle_http(audience: Audience, before: Audience, credential: str) -> None:
    """Leaves out of the options what is empty, and settles which credential there is. Raises ValidationError."""
    if isinstance(audience.options, Mapping):
        audience.options = {name: value for name, value in audience.options.items() if value not in ("", None)}
    if (_setting(audience, "auth") or "none") == "none":
        if credential:
            raise serializers.ValidationError({CREDENTIAL: [NO_USE]})
        audience.secrets = Sealed()
    elif credential:
        try:
            audience.secrets = Sealed.seal({CREDENTIAL: credential})
        except SecretUnreadable as refusal:
            raise serializers.ValidationError({CREDENTIAL: [str(refusal)]}) from refusal
    # Who may set the URL is not thereby told the credential that somebody else has entered.
    elif audience.secrets and leads_elsewhere(_setting(before, "url"), _setting(audience, "url")):
        raise serializers.ValidationError({CREDENTIAL: [ELSEWHERE]})


def _settle_other(audience: Audience, before: Audience, given: Mapping[str, object]) -> None:
    """Refuses what only an audience over HTTP has; one that was over HTTP forgets it. Raises ValidationError."""
    if wrong := {name: [ONLY_HTTP] for name, value in given.items() if value}:
        raise serializers.ValidationError(wrong)
    if before.kind == AudienceKind.HTTP or given["options"] is not None:
        audience.options, audience.secrets = {}, Sealed()


def _setting(audience: Audience, name: str) -> str:
    return str(audience.options.get(name) or "") if isinstance(audience.options, Mapping) else ""


def _by_place(refusal: ValidationError) -> dict[str, object]:
    """By field; what is said of the options by setting: {"options": {"fields": ["…"]}}. The credential is a field."""
    places: dict[str, object] = refusal.message_dict
    if places.pop("options", None):
        settings = {
            str(problem.code): [problem.message.removeprefix(f"{problem.code}: ")]
            for problem in refusal.error_dict["options"]
        }
        if CREDENTIAL in settings:
            places[CREDENTIAL] = settings.pop(CREDENTIAL)
        if settings:
            places["options"] = settings
    return places


def _write(audience: Audience) -> Audience:
    with writing(audience):
        audience.save()
    return SHOWN.get(pk=audience.pk)


class AudienceViewSet(SettingUpViewSet):
    queryset = SHOWN
    serializer_class = AudienceSerializer
