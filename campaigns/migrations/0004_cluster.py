from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('campaigns', '0003_run_filling_and_correlation'),
    ]

    operations = [
        migrations.CreateModel(
            name='Cluster',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('owner', models.CharField(help_text="The head's process, by host, id and start time.", max_length=200, unique=True)),
                ('host', models.CharField(max_length=100)),
                ('workers', models.PositiveSmallIntegerField()),
                ('started_at', models.DateTimeField()),
                ('beat_at', models.DateTimeField()),
                ('worked_at', models.DateTimeField(null=True)),
                ('restarts', models.PositiveIntegerField(default=0, help_text='How often its processes were started anew.')),
                ('stopping', models.BooleanField(default=False)),
            ],
            options={
                'ordering': ['host', 'id'],
            },
        ),
    ]
