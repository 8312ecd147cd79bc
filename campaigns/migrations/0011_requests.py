import django.db.models.deletion
from django.db import migrations, models


def take_over_priorities(apps, schema_editor):
    """Runs that wait to begin keep their place."""
    run = apps.get_model("campaigns", "Run")
    for unfinished in run.objects.filter(state__in=["queued", "initializing", "sending", "paused"]):
        run.objects.filter(pk=unfinished.pk).update(priority=unfinished.workflow.priority)


class Migration(migrations.Migration):
    dependencies = [("campaigns", "0010_callbacks")]

    operations = [
        migrations.AddField(
            model_name="run",
            name="overrides",
            field=models.JSONField(
                default=dict,
                help_text="What it has beside or in place of the workflow's (campaigns.overrides).",
            ),
        ),
        migrations.AddField(
            model_name="run",
            name="priority",
            field=models.SmallIntegerField(default=0, help_text="The lowest goes first."),
        ),
        migrations.AddIndex(
            model_name="run",
            index=models.Index(
                condition=models.Q(("state", "queued")), fields=["priority", "id"], name="run_queued"
            ),
        ),
        migrations.RunPython(take_over_priorities, migrations.RunPython.noop),
        migrations.CreateModel(
            name="RunRecipients",
            fields=[
                (
                    "run",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="recipients",
                        serialize=False,
                        to="campaigns.run",
                    ),
                ),
                ("content", models.BinaryField()),
            ],
        ),
        migrations.CreateModel(
            name="RunRequest",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("at", models.DateTimeField(auto_now_add=True)),
                (
                    "mode",
                    models.CharField(
                        choices=[
                            ("sync", "API, waiting"),
                            ("async", "API"),
                            ("schedule", "schedule"),
                            ("command", "command line"),
                            ("admin", "admin"),
                        ],
                        max_length=8,
                    ),
                ),
                (
                    "outcome",
                    models.CharField(
                        choices=[
                            ("started", "started a run"),
                            ("repeated", "had been answered before"),
                            ("refused", "refused"),
                        ],
                        max_length=8,
                    ),
                ),
                ("by", models.CharField(blank=True, max_length=150)),
                (
                    "request_id",
                    models.CharField(blank=True, help_text="In every log line about this request.", max_length=64),
                ),
                ("key", models.CharField(blank=True, help_text="Its Idempotency-Key.", max_length=200)),
                (
                    "recipients",
                    models.PositiveIntegerField(
                        help_text="How many were given with it. None: the audience.", null=True
                    ),
                ),
                ("seconds", models.FloatField(help_text="Until the answer.", null=True)),
                ("words", models.CharField(blank=True, help_text="Why it was refused.", max_length=500)),
                (
                    "run",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="requests",
                        to="campaigns.run",
                    ),
                ),
                (
                    "workflow",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="campaigns.workflow",
                    ),
                ),
            ],
            options={
                "ordering": ["-id"],
                "verbose_name": "request",
                "indexes": [
                    models.Index(fields=["workflow", "-id"], name="request_of_workflow"),
                    models.Index(
                        condition=models.Q(("mode", "async"), _negated=True),
                        fields=["mode", "-id"],
                        name="request_of_mode",
                    ),
                    models.Index(
                        condition=models.Q(("outcome", "started"), _negated=True),
                        fields=["outcome", "-id"],
                        name="request_of_outcome",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="IdempotencyKey",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("owner", models.CharField(max_length=160)),
                ("key", models.CharField(max_length=200)),
                ("fingerprint", models.CharField(help_text="SHA-256 of address and body.", max_length=64)),
                (
                    "run_id",
                    models.BigIntegerField(help_text="The run that it made, while it is waited for.", null=True),
                ),
                ("status", models.PositiveSmallIntegerField(null=True)),
                ("answer", models.JSONField(null=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
            ],
            options={
                "indexes": [models.Index(fields=["created_at"], name="idempotency_key_age")],
                "constraints": [models.UniqueConstraint(fields=("owner", "key"), name="idempotency_key_once")],
            },
        ),
    ]
