"""The form of an audience: where the recipients come from, and the file when they come from one."""

from django import forms
from unfold.widgets import UnfoldAdminFileFieldWidget, UnfoldAdminSelectWidget

from campaigns.admin.http_fields import HttpFields
from campaigns.conf import conf
from campaigns.models import AudienceKind, Upload

NO_CONNECTION = "There is none: set OUTREACH_AUDIENCE_DATABASES in the environment and start again."


class AudienceForm(HttpFields, forms.ModelForm):
    """Offers the configured connections, and asks for a file where one is needed and none is there."""

    class Meta:
        labels = {"key_field": "Id", "depends_field": "Depends on", "deadline_field": "Deadline"}

    file = forms.FileField(label="CSV file", required=False, widget=UnfoldAdminFileFieldWidget)

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        if "connection" in self.fields:  # who may only look has no fields
            self._offer_connections()
        self.begin_http()
        if upload := self._upload():
            self.fields["file"].help_text = (
                f"Now: {upload.filename}, {upload.size:,} bytes, uploaded {upload.uploaded_at:%Y-%m-%d %H:%M} UTC. "
                "Another file takes its place."
            )

    def _offer_connections(self) -> None:
        names = dict.fromkeys([*sorted(conf().audience_databases), *filter(None, [self.instance.connection])])
        offered = [("", "Select value"), *((name, name) for name in names)]
        self.fields["connection"].widget = UnfoldAdminSelectWidget(choices=offered)
        if not conf().audience_databases:
            self.fields["connection"].help_text = NO_CONNECTION

    def _upload(self) -> Upload | None:
        return Upload.objects.filter(audience=self.instance.pk).first() if self.instance.pk else None

    def clean(self) -> dict[str, object]:
        cleaned = super().clean()
        needs_file = cleaned.get("kind") == AudienceKind.CSV and not cleaned.get("file")
        if needs_file and "file" not in self.errors and self._upload() is None:
            self.add_error("file", "Choose the file.")
        self.clean_http(cleaned)
        return cleaned
