"""Audiences, and the two kinds of recipients that are stored here: contacts and uploaded files."""

from django.core.exceptions import ValidationError
from django.db import models

from delivery.secrets import Sealed, SealedField


class ContactList(models.Model):
    """Stored contacts with attributes."""

    name = models.CharField(max_length=200, unique=True)
    slug = models.SlugField(max_length=100, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Contact(models.Model):
    """One person on one list."""

    contact_list = models.ForeignKey(ContactList, on_delete=models.CASCADE, related_name="contacts")
    address = models.CharField(max_length=320)
    identity = models.CharField(max_length=320, editable=False, help_text="The form in which addresses are compared.")
    name = models.CharField(max_length=200, blank=True)
    attributes = models.JSONField(default=dict, blank=True, help_text="Fields for the template, a JSON object.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["contact_list", "identity"], name="contact_once_per_list")]

    def __str__(self) -> str:
        return self.address

    def clean(self) -> None:
        if not isinstance(self.attributes, dict):
            raise ValidationError({"attributes": 'Enter a JSON object, such as {"city": "Leeds"}.'})


class AudienceKind(models.TextChoices):
    LIST = "list", "contact list"
    CSV = "csv", "CSV file"
    SQL = "sql", "SQL query"
    HTTP = "http", "JSON over HTTP"


class Audience(models.Model):
    """Where the recipients of a workflow come from."""

    name = models.CharField(max_length=200, unique=True)
    slug = models.SlugField(max_length=100, unique=True, help_text="The name for commands and the API.")
    kind = models.CharField(max_length=4, choices=AudienceKind)
    contact_list = models.ForeignKey(ContactList, on_delete=models.PROTECT, null=True, blank=True)
    connection = models.CharField(max_length=50, blank=True, help_text="SQL: a name from OUTREACH_AUDIENCE_DATABASES.")
    query = models.TextField(blank=True, help_text="SQL: one SELECT. Its columns are the template's variables.")
    address_field = models.CharField(max_length=100, blank=True, help_text="Empty: email, e-mail, mail or address.")
    name_field = models.CharField(max_length=100, blank=True, help_text="Empty: name, if there is such a column.")
    key_field = models.CharField(
        max_length=100,
        blank=True,
        help_text="The field with each recipient's id, where others depend on it: then the same address may be there "
        "several times, under other ids. Empty: an address is there once.",
    )
    depends_field = models.CharField(
        max_length=100,
        blank=True,
        help_text="The field with the ids whose mails have to be accepted before: a list, or parted by commas.",
    )
    deadline_field = models.CharField(
        max_length=100,
        blank=True,
        help_text="The field with the instant until when the mail has to be gone: 2026-12-24T09:00:00+01:00.",
    )
    delimiter = models.CharField(max_length=1, blank=True, help_text="CSV: empty to detect it.")
    encoding = models.CharField(max_length=20, blank=True, help_text="CSV: empty for UTF-8 or UTF-16 with a mark.")
    options = models.JSONField(default=dict, blank=True, help_text="HTTP: URL, paging, fields, as a JSON object.")
    secrets = SealedField(default=Sealed, blank=True, editable=False)
    # No column: what a reading that began with this object has come to, for `campaigns.audiences.bookmarks`.
    reached: object = None
    created_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        from campaigns.audiences.stored import refuse_bad_settings  # the sources import these models

        if self.depends_field and not self.key_field:
            raise ValidationError({"key_field": "By which field are others named in the dependencies? For example id."})
        refuse_bad_settings(self)


class AudienceBookmark(models.Model):
    """How far an audience has been read that gives only what is new. Written by `campaigns.audiences.bookmarks` alone.

    `value` is the highest that was seen, "" before the first and after a reset; `ties` are digests of the items that
    bore it. `version` counts the changes: who has read from one must not write over another's."""

    audience = models.OneToOneField(Audience, on_delete=models.CASCADE, primary_key=True, related_name="bookmark")
    value = models.CharField(max_length=200, blank=True)
    ties = models.JSONField(default=list, blank=True)
    version = models.PositiveBigIntegerField(default=0)
    moved_at = models.DateTimeField(null=True)
    run_id = models.BigIntegerField(null=True, help_text="The run that read so far.")

    def __str__(self) -> str:
        return f"{self.audience}: {self.value or 'not read yet'}"


class Upload(models.Model):
    """A file as it was uploaded, kept in the database: every worker on every host can read it."""

    audience = models.OneToOneField(Audience, on_delete=models.CASCADE, related_name="upload")
    filename = models.CharField(max_length=255)
    size = models.PositiveBigIntegerField()
    uploaded_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.filename


class UploadChunk(models.Model):
    """A piece of an upload, compressed, so that neither writing nor reading needs the whole in memory."""

    upload = models.ForeignKey(Upload, on_delete=models.CASCADE, related_name="chunks")
    position = models.PositiveIntegerField()
    content = models.BinaryField()

    class Meta:
        ordering = ["position"]
        constraints = [models.UniqueConstraint(fields=["upload", "position"], name="chunk_once")]

    def __str__(self) -> str:
        return f"{self.upload} #{self.position}"
