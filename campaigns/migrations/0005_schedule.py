import django.core.validators
import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('campaigns', '0004_cluster'),
    ]

    operations = [
        migrations.CreateModel(
            name='Schedule',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(help_text='Runs are recorded as started by it.', max_length=150)),
                ('kind', models.CharField(choices=[('once', 'once'), ('interval', 'interval'), ('cron', 'cron line')], default='cron', max_length=8)),
                ('at', models.DateTimeField(blank=True, null=True)),
                ('every', models.PositiveIntegerField(blank=True, null=True)),
                ('unit', models.CharField(blank=True, choices=[('minutes', 'minutes'), ('hours', 'hours'), ('days', 'days'), ('weeks', 'weeks')], max_length=7)),
                ('anchor', models.DateTimeField(blank=True, help_text='The first slot; the others are counted from it.', null=True)),
                ('cron', models.CharField(blank=True, help_text='Minute, hour, day of the month, month, day of the week: 0 9 * * 1-5 is every weekday at 09:00. Or @hourly, @daily, @weekly, @monthly, @yearly.', max_length=200)),
                ('time_zone', models.CharField(default=django.utils.timezone.get_default_timezone_name, help_text='By name, such as Europe/Zurich.', max_length=64)),
                ('starts_at', models.DateTimeField(blank=True, help_text='No slot is earlier.', null=True)),
                ('ends_at', models.DateTimeField(blank=True, help_text='No slot is later.', null=True)),
                ('late_policy', models.CharField(choices=[('skip', 'skip: what was missed does not run'), ('run_once', 'run once: the latest runs, for all that were missed'), ('run_all', 'run all: every one runs, the oldest first')], default='run_once', help_text='What becomes of slots that were missed, because no worker was running for instance.', max_length=8)),
                ('late_grace_seconds', models.PositiveIntegerField(default=120, help_text='A slot that is later than this was missed.', validators=[django.core.validators.MinValueValidator(30), django.core.validators.MaxValueValidator(604800)])),
                ('paused', models.BooleanField(default=False)),
                ('checked_until', models.DateTimeField(editable=False, help_text='Up to which instant its slots have been looked at.')),
                ('next_at', models.DateTimeField(editable=False, help_text='The first slot after that. NULL: none, or paused.', null=True)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('changed_at', models.DateTimeField(auto_now=True)),
                ('workflow', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='schedules', to='campaigns.workflow')),
            ],
            options={
                'ordering': ['name', 'id'],
            },
        ),
        migrations.CreateModel(
            name='ScheduleEvent',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('what', models.CharField(max_length=300)),
                ('by', models.CharField(blank=True, max_length=150)),
                ('why', models.CharField(blank=True, max_length=500)),
                ('at', models.DateTimeField(auto_now_add=True)),
                ('schedule', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='events', to='campaigns.schedule')),
            ],
            options={
                'ordering': ['id'],
            },
        ),
        migrations.AddIndex(
            model_name='schedule',
            index=models.Index(condition=models.Q(('paused', False)), fields=['next_at'], name='schedule_due'),
        ),
        migrations.AddConstraint(
            model_name='schedule',
            constraint=models.UniqueConstraint(fields=('workflow', 'name'), name='schedule_name_once'),
        ),
    ]
