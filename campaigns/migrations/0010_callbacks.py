import campaigns.models.callback
import delivery.secrets
import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("campaigns", "0009_steps_and_dependencies")]

    operations = [
        migrations.AddField(
            model_name="run",
            name="callback_url",
            field=models.CharField(blank=True, help_text="Who is told of its pauses and its end.", max_length=2000),
        ),
        migrations.CreateModel(
            name='CallbackSender',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('owner', models.CharField(blank=True, max_length=200)),
                ('until', models.DateTimeField(null=True)),
            ],
        ),
        migrations.CreateModel(
            name='Webhook',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=150, unique=True)),
                ('url', models.CharField(max_length=2000, verbose_name='URL')),
                ('secrets', delivery.secrets.SealedField(blank=True, default=delivery.secrets.Sealed, editable=False)),
                ('events', models.JSONField(default=list, help_text='Which: names such as run.completed, or run.* for all of a kind.')),
                ('enabled', models.BooleanField(default=True)),
                ('failing_since', models.DateTimeField(editable=False, help_text='When it last began to fail.', null=True)),
                ('failures', models.PositiveIntegerField(default=0, editable=False, help_text='Attempts since then.')),
                ('switched_off_why', models.CharField(blank=True, editable=False, help_text='Why nobody is told any more, if no person decided that.', max_length=300)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('changed_at', models.DateTimeField(auto_now=True)),
            ],
            options={
                'ordering': ['name'],
            },
        ),
        migrations.CreateModel(
            name='Callback',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('key', models.CharField(default=campaigns.models.callback.new_key, help_text='Its webhook-id, in every attempt.', max_length=40, unique=True)),
                ('url', models.CharField(help_text="A webhook's is that of when it was written.", max_length=2000, verbose_name='URL')),
                ('type', models.CharField(max_length=40)),
                ('body', models.TextField()),
                ('state', models.CharField(choices=[('waiting', 'waiting'), ('delivered', 'delivered'), ('dead', 'dead letter')], default='waiting', max_length=9)),
                ('attempts', models.PositiveSmallIntegerField(default=0)),
                ('next_at', models.DateTimeField(default=django.utils.timezone.now, null=True)),
                ('claim', models.CharField(blank=True, max_length=32)),
                ('gives_up_at', models.DateTimeField(default=campaigns.models.callback.gives_up_at)),
                ('words', models.CharField(blank=True, help_text='What was said last.', max_length=300)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('ended_at', models.DateTimeField(null=True)),
                ('run', models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='callbacks', to='campaigns.run')),
                ('webhook', models.ForeignKey(db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='callbacks', to='campaigns.webhook')),
            ],
            options={
                'ordering': ['-id'],
            },
        ),
        migrations.CreateModel(
            name='CallbackAttempt',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('at', models.DateTimeField()),
                ('seconds', models.FloatField()),
                ('status', models.PositiveSmallIntegerField(null=True)),
                ('words', models.CharField(blank=True, max_length=300)),
                ('callback', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='tries', to='campaigns.callback')),
            ],
            options={
                'ordering': ['id'],
            },
        ),
        migrations.CreateModel(
            name='WebhookEvent',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('what', models.CharField(max_length=300)),
                ('by', models.CharField(blank=True, max_length=150)),
                ('why', models.CharField(blank=True, max_length=300)),
                ('at', models.DateTimeField(auto_now_add=True)),
                ('webhook', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='history', to='campaigns.webhook')),
            ],
            options={
                'ordering': ['id'],
            },
        ),
        migrations.AddIndex(
            model_name='callback',
            index=models.Index(condition=models.Q(('state', 'waiting')), fields=['next_at'], name='callback_due'),
        ),
        migrations.AddIndex(
            model_name='callback',
            index=models.Index(fields=['state', 'id'], name='callback_of_state'),
        ),
        migrations.AddIndex(
            model_name='callback',
            index=models.Index(fields=['webhook', 'state', 'id'], name='callback_of_webhook'),
        ),
        migrations.AddIndex(
            model_name='callback',
            index=models.Index(fields=['type', 'id'], name='callback_of_type'),
        ),
        migrations.AddIndex(
            model_name='callback',
            index=models.Index(condition=models.Q(('run__isnull', False)), fields=['run', 'id'], name='callback_of_run'),
        ),
        migrations.AddIndex(
            model_name='callback',
            index=models.Index(condition=models.Q(('state', 'delivered')), fields=['ended_at'], name='callback_over'),
        ),
    ]
