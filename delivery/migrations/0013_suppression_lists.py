from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("delivery", "0012_hold_permission")]

    operations = [
        migrations.AddIndex(
            model_name="suppression",
            index=models.Index(fields=["reason", "id"], name="suppression_reason"),
        ),
        migrations.AddIndex(
            model_name="suppression",
            index=models.Index(fields=["scope", "id"], name="suppression_scope"),
        ),
    ]
