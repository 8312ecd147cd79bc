"""Imports of contacts: a file, how its columns are read, how far it is, and what it changed so that it can be undone.

An import's state is written by `campaigns.contacts.states` alone.
"""

from django.db import models

from campaigns.models.audience import ContactList


class ImportState(models.TextChoices):
    UPLOADING = "uploading", "being uploaded"
    UPLOADED = "uploaded", "uploaded"
    CHECKING = "checking", "being checked"
    CHECKED = "checked", "checked"
    IMPORTING = "importing", "being imported"
    DONE = "done", "imported"
    UNDOING = "undoing", "being undone"
    UNDONE = "undone", "undone"
    REFUSED = "refused", "refused"  # by the check: the file cannot be trusted as a whole


# Somebody works on these, or should.
UNDER_WAY = (ImportState.CHECKING, ImportState.IMPORTING, ImportState.UNDOING)


class ImportPolicy(models.TextChoices):
    """What becomes of contacts that are there already. An empty cell never changes what is there."""

    KEEP = "keep", "keep them as they are"
    FILL = "fill", "fill in what they lack"
    OVERWRITE = "overwrite", "overwrite with what the file says"


class ContactImport(models.Model):
    """One file of contacts for one list."""

    contact_list = models.ForeignKey(ContactList, on_delete=models.CASCADE, related_name="imports")
    filename = models.CharField(max_length=255)
    size = models.PositiveBigIntegerField(default=0, help_text="Octets.")
    encoding = models.CharField(max_length=20, blank=True, help_text="Empty: UTF-8, or UTF-16 with a mark.")
    delimiter = models.CharField(max_length=1, blank=True, help_text="Empty: found by the first line.")
    columns = models.JSONField(default=list, help_text="The headings, in the file's order.")
    sample = models.JSONField(default=list, help_text="The first rows.")
    mapping = models.JSONField(default=dict, help_text="How columns are read (campaigns.contacts.mapping).")
    policy = models.CharField(max_length=9, choices=ImportPolicy, default=ImportPolicy.FILL)
    state = models.CharField(max_length=9, choices=ImportState, default=ImportState.UPLOADING)
    holder = models.CharField(max_length=200, blank=True, help_text="Who works on it.")
    holder_until = models.DateTimeField(null=True)
    position = models.PositiveBigIntegerField(default=0, help_text="Rows of the file that are worked through.")
    forecast = models.JSONField(default=dict, help_text="What the check has counted.")
    counts = models.JSONField(default=dict, help_text="What the import has done.")
    undone = models.JSONField(default=dict, help_text="What the undoing has done.")
    problem_counts = models.JSONField(default=dict, help_text="Bad rows by reason.")
    error = models.TextField(blank=True, help_text="Why the file was refused.")
    by = models.CharField(max_length=150, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name = "import of contacts"
        verbose_name_plural = "imports of contacts"
        ordering = ["-id"]
        indexes = [
            # the tick: which does nobody work on?
            models.Index(
                fields=["id"],
                condition=models.Q(state__in=["checking", "importing", "undoing"]),
                name="import_under_way",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.filename} into {self.contact_list}"


class ImportChunk(models.Model):
    """A piece of the file, compressed. Gone once the file is imported."""

    contact_import = models.ForeignKey(ContactImport, on_delete=models.CASCADE, related_name="chunks")
    position = models.PositiveIntegerField()
    content = models.BinaryField()

    class Meta:
        ordering = ["position"]
        constraints = [models.UniqueConstraint(fields=["contact_import", "position"], name="import_chunk_once")]

    def __str__(self) -> str:
        return f"{self.contact_import_id} #{self.position}"


class ImportProblem(models.Model):
    """A row of the file that makes no contact, or a contact that could not be undone, and why."""

    contact_import = models.ForeignKey(ContactImport, on_delete=models.CASCADE, related_name="problems", db_index=False)
    row = models.PositiveBigIntegerField(help_text="The line of the file.")
    reason = models.CharField(max_length=40)
    detail = models.CharField(max_length=500)
    raw = models.CharField(max_length=200, help_text="What stands there, cut off.")

    class Meta:
        ordering = ["id"]
        # the file of errors: those of one import, in their order
        indexes = [models.Index(fields=["contact_import", "id"], name="problem_of_import")]

    def __str__(self) -> str:
        return f"row {self.row}: {self.detail}"


class ContactChange(models.Model):
    """What an import did to one contact. `before` is what it gives back, None for a contact that it made; `after` is a
    digest of what it left, by which a later change is seen. Goes when it is undone."""

    contact_import = models.ForeignKey(ContactImport, on_delete=models.CASCADE, related_name="changes", db_index=False)
    contact_id = models.BigIntegerField()
    row = models.PositiveBigIntegerField()
    before = models.JSONField(null=True)
    after = models.CharField(max_length=32)

    class Meta:
        # undoing: those of one import, in their order
        indexes = [models.Index(fields=["contact_import", "id"], name="change_of_import")]

    def __str__(self) -> str:
        return f"{self.contact_import_id}: contact {self.contact_id}"
