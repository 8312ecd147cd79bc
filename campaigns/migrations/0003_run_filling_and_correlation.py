import campaigns.models.run
from django.db import migrations, models
from django.db.models.functions import Cast, Concat


def describe_earlier_runs(apps, schema_editor):
    """Runs that were sending had all their deliveries by then; one default would be the same for all of them."""
    runs = apps.get_model('campaigns', 'Run').objects
    runs.filter(sending_at__isnull=False).update(filled_at=models.F('sending_at'))
    runs.update(correlation_id=Concat(models.Value('run-'), Cast('id', models.CharField())))


class Migration(migrations.Migration):

    dependencies = [
        ('campaigns', '0002_workflow_start_and_time_limit'),
    ]

    operations = [
        migrations.AddField(
            model_name='run',
            name='correlation_id',
            field=models.CharField(default=campaigns.models.run.new_correlation_id, editable=False, help_text='In every log line about this run.', max_length=32),
        ),
        migrations.AddField(
            model_name='run',
            name='filled_at',
            field=models.DateTimeField(help_text='When the last delivery was written.', null=True),
        ),
        migrations.AddField(
            model_name='run',
            name='times_out_at',
            field=models.DateTimeField(help_text='When it fails if it is not through.', null=True),
        ),
        migrations.RunPython(describe_earlier_runs, migrations.RunPython.noop),
    ]
