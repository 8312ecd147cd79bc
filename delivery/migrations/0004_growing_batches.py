from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('delivery', '0003_delivery_turn'),
    ]

    operations = [
        migrations.AddField(
            model_name='batch',
            name='growing',
            field=models.BooleanField(default=False, help_text='Deliveries are still added while the first ones go out.'),
        ),
        migrations.AddField(
            model_name='batch',
            name='left_as',
            field=models.CharField(default='cancelled', help_text='How deliveries end that a cancelled batch leaves unsent.', max_length=10),
        ),
    ]
