"""Django settings of the rival django-post_office, as its documentation has them, with the benchmark's sink behind it.

Reads the database and the sink's port from the environment; `rivals` sets both.
"""

import os

import environ

SECRET_KEY = "only-for-a-benchmark"
USE_TZ = True
INSTALLED_APPS = ["django.contrib.contenttypes", "post_office"]
DATABASES = {"default": environ.Env.db_url_config(os.environ["DATABASE_URL"])}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]

EMAIL_BACKEND = "post_office.EmailBackend"
EMAIL_HOST = "127.0.0.1"
EMAIL_PORT = int(os.environ["RIVAL_SMTP_PORT"])
POST_OFFICE = {
    "BACKENDS": {"default": "django.core.mail.backends.smtp.EmailBackend"},
    # Ten times its default: fewer queries for each mail.
    "BATCH_SIZE": 1000,
}
# Its INFO lines on the terminal would be part of what is measured.
LOGGING = {
    "version": 1,
    "handlers": {"none": {"class": "logging.NullHandler"}},
    "loggers": {"post_office": {"handlers": ["none"], "level": "WARNING", "propagate": False}},
}
