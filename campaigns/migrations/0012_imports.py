import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("campaigns", "0011_requests"),
    ]

    operations = [
        migrations.CreateModel(
            name="ContactImport",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("filename", models.CharField(max_length=255)),
                ("size", models.PositiveBigIntegerField(default=0, help_text="Octets.")),
                (
                    "encoding",
                    models.CharField(blank=True, help_text="Empty: UTF-8, or UTF-16 with a mark.", max_length=20),
                ),
                ("delimiter", models.CharField(blank=True, help_text="Empty: found by the first line.", max_length=1)),
                ("columns", models.JSONField(default=list, help_text="The headings, in the file's order.")),
                ("sample", models.JSONField(default=list, help_text="The first rows.")),
                (
                    "mapping",
                    models.JSONField(default=dict, help_text="How columns are read (campaigns.contacts.mapping)."),
                ),
                (
                    "policy",
                    models.CharField(
                        choices=[
                            ("keep", "keep them as they are"),
                            ("fill", "fill in what they lack"),
                            ("overwrite", "overwrite with what the file says"),
                        ],
                        default="fill",
                        max_length=9,
                    ),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("uploading", "being uploaded"),
                            ("uploaded", "uploaded"),
                            ("checking", "being checked"),
                            ("checked", "checked"),
                            ("importing", "being imported"),
                            ("done", "imported"),
                            ("undoing", "being undone"),
                            ("undone", "undone"),
                            ("refused", "refused"),
                        ],
                        default="uploading",
                        max_length=9,
                    ),
                ),
                ("holder", models.CharField(blank=True, help_text="Who works on it.", max_length=200)),
                ("holder_until", models.DateTimeField(null=True)),
                (
                    "position",
                    models.PositiveBigIntegerField(default=0, help_text="Rows of the file that are worked through."),
                ),
                ("forecast", models.JSONField(default=dict, help_text="What the check has counted.")),
                ("counts", models.JSONField(default=dict, help_text="What the import has done.")),
                ("undone", models.JSONField(default=dict, help_text="What the undoing has done.")),
                ("problem_counts", models.JSONField(default=dict, help_text="Bad rows by reason.")),
                ("error", models.TextField(blank=True, help_text="Why the file was refused.")),
                ("by", models.CharField(blank=True, max_length=150)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("started_at", models.DateTimeField(null=True)),
                ("ended_at", models.DateTimeField(null=True)),
                (
                    "contact_list",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="imports", to="campaigns.contactlist"
                    ),
                ),
            ],
            options={
                "verbose_name": "import of contacts",
                "verbose_name_plural": "imports of contacts",
                "ordering": ["-id"],
            },
        ),
        migrations.CreateModel(
            name="ContactChange",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("contact_id", models.BigIntegerField()),
                ("row", models.PositiveBigIntegerField()),
                ("before", models.JSONField(null=True)),
                ("after", models.CharField(max_length=32)),
                (
                    "contact_import",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="changes",
                        to="campaigns.contactimport",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="ImportChunk",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("position", models.PositiveIntegerField()),
                ("content", models.BinaryField()),
                (
                    "contact_import",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="chunks", to="campaigns.contactimport"
                    ),
                ),
            ],
            options={
                "ordering": ["position"],
            },
        ),
        migrations.CreateModel(
            name="ImportProblem",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("row", models.PositiveBigIntegerField(help_text="The line of the file.")),
                ("reason", models.CharField(max_length=40)),
                ("detail", models.CharField(max_length=500)),
                ("raw", models.CharField(help_text="What stands there, cut off.", max_length=200)),
                (
                    "contact_import",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="problems",
                        to="campaigns.contactimport",
                    ),
                ),
            ],
            options={
                "ordering": ["id"],
            },
        ),
        migrations.AddIndex(
            model_name="contactimport",
            index=models.Index(
                condition=models.Q(("state__in", ["checking", "importing", "undoing"])),
                fields=["id"],
                name="import_under_way",
            ),
        ),
        migrations.AddIndex(
            model_name="contactchange",
            index=models.Index(fields=["contact_import", "id"], name="change_of_import"),
        ),
        migrations.AddConstraint(
            model_name="importchunk",
            constraint=models.UniqueConstraint(fields=("contact_import", "position"), name="import_chunk_once"),
        ),
        migrations.AddIndex(
            model_name="importproblem",
            index=models.Index(fields=["contact_import", "id"], name="problem_of_import"),
        ),
    ]
