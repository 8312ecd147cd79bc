import datetime
import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('delivery', '0009_links'),
    ]

    operations = [
        migrations.CreateModel(
            name='Composition',
            fields=[
                ('delivery', models.OneToOneField(db_constraint=False, on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='composition', serialize=False, to='delivery.delivery')),
                ('state', models.CharField(choices=[('wanted', 'wanted'), ('claimed', 'being composed'), ('review', 'waits for review'), ('done', 'composed'), ('fallback', 'template used'), ('rejected', 'rejected'), ('lapsed', 'lapsed')], db_default='wanted', max_length=8)),
                ('deadline', models.DateTimeField(db_default=datetime.datetime(9999, 1, 1, 0, 0, tzinfo=datetime.timezone.utc), help_text='Of its delivery.')),
                ('not_before', models.DateTimeField(null=True)),
                ('attempts', models.SmallIntegerField(db_default=0)),
                ('text', models.TextField(db_default='')),
                ('words', models.CharField(db_default='', help_text='What went wrong last.', max_length=500)),
                ('composed_at', models.DateTimeField(null=True)),
                ('reviewed_by', models.CharField(db_default='', max_length=150)),
                ('reviewed_at', models.DateTimeField(null=True)),
                ('batch', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.CASCADE, to='delivery.batch')),
                ('engine', models.ForeignKey(db_constraint=False, db_index=False, help_text='Who composes it.', on_delete=django.db.models.deletion.DO_NOTHING, to='delivery.engine')),
                ('lease', models.ForeignKey(db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, to='delivery.lease')),
            ],
            options={
                'verbose_name': 'composed text',
                'indexes': [models.Index(condition=models.Q(('state', 'wanted')), fields=['batch', 'engine', 'deadline', 'delivery'], name='composition_wanted'), models.Index(condition=models.Q(('state', 'review')), fields=['deadline', 'delivery'], name='composition_review'), models.Index(condition=models.Q(('lease__isnull', False)), fields=['lease'], name='composition_claimed')],
            },
        ),
    ]
