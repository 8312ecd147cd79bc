import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("campaigns", "0012_imports")]

    operations = [
        migrations.AddIndex(
            model_name="run",
            index=models.Index(fields=["workflow", "-id"], name="run_of_workflow"),
        ),
        migrations.AlterField(
            model_name="run",
            name="workflow",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="runs",
                to="campaigns.workflow",
            ),
        ),
        migrations.AddIndex(
            model_name="run",
            index=models.Index(
                condition=models.Q(("state", "completed"), _negated=True),
                fields=["state", "-id"],
                name="run_of_state",
            ),
        ),
        migrations.AddIndex(
            model_name="run",
            index=models.Index(
                condition=models.Q(("trigger", "api"), _negated=True), fields=["trigger", "-id"], name="run_of_trigger"
            ),
        ),
        migrations.AddIndex(
            model_name="run",
            index=models.Index(condition=models.Q(("test_limit__isnull", False)), fields=["-id"], name="run_test"),
        ),
        migrations.AddIndex(model_name="run", index=models.Index(fields=["created_at"], name="run_created")),
    ]
