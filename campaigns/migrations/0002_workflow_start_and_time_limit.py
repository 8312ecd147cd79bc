import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('campaigns', '0001_initial'),
    ]

    operations = [
        migrations.AddField(
            model_name='workflow',
            name='start',
            field=models.CharField(choices=[('checked', 'when every recipient has been checked: nothing goes out if one cannot be rendered'), ('at_once', 'at once: the first mails go out while the rest of the audience is still read')], default='checked', help_text='When the first mail may go out. At once: who cannot be rendered becomes a dead letter when his turn comes.', max_length=7),
        ),
        migrations.AddField(
            model_name='workflow',
            name='time_limit_minutes',
            field=models.PositiveIntegerField(blank=True, help_text='A run that is not through so long after its start fails; what was not sent then expires. Empty: no limit.', null=True, validators=[django.core.validators.MinValueValidator(1), django.core.validators.MaxValueValidator(525600)]),
        ),
    ]
