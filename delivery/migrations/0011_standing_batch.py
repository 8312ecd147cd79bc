from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("delivery", "0010_composition")]

    operations = [
        migrations.AddField(
            model_name="batch",
            name="standing",
            field=models.BooleanField(
                db_default=False, help_text="It is filled one by one, and not done before it is closed."
            ),
        ),
        migrations.AddIndex(
            model_name="batch",
            index=models.Index(
                condition=models.Q(("standing", True)), fields=["created_at"], name="batch_standing"
            ),
        ),
    ]
