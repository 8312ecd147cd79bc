from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('delivery', '0004_growing_batches'),
    ]

    operations = [
        migrations.AddField(
            model_name='engine',
            name='held',
            field=models.BooleanField(default=False, editable=False),
        ),
        migrations.AddField(
            model_name='engine',
            name='held_until',
            field=models.DateTimeField(editable=False, help_text='When the hold ends by itself.', null=True),
        ),
        migrations.AddField(
            model_name='engine',
            name='hold_reason',
            field=models.CharField(blank=True, editable=False, max_length=200),
        ),
    ]
