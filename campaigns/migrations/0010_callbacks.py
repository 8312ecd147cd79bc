from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("campaigns", "0009_steps_and_dependencies")]

    operations = []
