from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [
        ('delivery', '0011_standing_batch'),
    ]

    operations = [
        migrations.AlterModelOptions(
            name='engine',
            options={'ordering': ['name'], 'permissions': [('hold_engine', 'Can hold and release engines')]},
        ),
    ]
