import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('delivery', '0005_engine_hold'),
    ]

    operations = [
        migrations.CreateModel(
            name='EngineEvent',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('what', models.CharField(max_length=300)),
                ('by', models.CharField(blank=True, max_length=150)),
                ('why', models.CharField(blank=True, max_length=200)),
                ('at', models.DateTimeField(auto_now_add=True)),
                ('engine', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='events', to='delivery.engine')),
            ],
            options={
                'ordering': ['id'],
            },
        ),
    ]
