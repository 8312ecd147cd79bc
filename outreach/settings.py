"""Django's settings. The only module that reads the environment; `.env.example` lists every variable."""

import secrets
from pathlib import Path

from outreach import logs
from outreach.environment import Environment
from outreach.unfold import UNFOLD as UNFOLD

BASE_DIR = Path(__file__).resolve().parent.parent
KEYS_HINT = "Run `make env`: it writes a .env file with fresh keys."

env = Environment(BASE_DIR / ".env")

DEBUG = env.boolean("DEBUG", False)
# A missing key is an error of `outreach.checks`; until that speaks, a key of this process alone keeps Django loading.
SECRET_KEY = env.secret("SECRET_KEY", KEYS_HINT) or secrets.token_urlsafe(50)
# By 127.0.0.1 a container's own health check asks, whatever names the installation has.
ALLOWED_HOSTS = [*env.listed("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]"), "127.0.0.1"]
CSRF_TRUSTED_ORIGINS = env.listed("CSRF_TRUSTED_ORIGINS")
VAR_DIR = env.directory("OUTREACH_VAR_DIR", BASE_DIR / "var")

INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "rest_framework",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_q",
    "delivery",
    "campaigns",
    "outreach",
]

MIDDLEWARE = [
    "outreach.requests.request_ids",
    "outreach.access.audit.audit",
    "outreach.access.rate_limits.rate_limits",
    "outreach.problems.problems",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "outreach.urls"
WSGI_APPLICATION = "outreach.wsgi.application"
ASGI_APPLICATION = "outreach.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]


def database() -> dict:
    """The default database. A worker keeps its connections, and SQLite is set so that many processes may write."""
    config = env.database("DATABASE_URL", f"sqlite:///{VAR_DIR / 'outreach.sqlite3'}")
    config |= {"CONN_MAX_AGE": 600, "CONN_HEALTH_CHECKS": True}
    if "sqlite" in config["ENGINE"]:
        config["OPTIONS"] = {
            # A deferred transaction that turns into a writer fails at once when another one writes; an immediate waits.
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            # FULL: a commit is on the disk before it returns. The mark before a hand-over must survive a power cut, and
            # group commit makes the price one fsync for some hundred deliveries.
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
        }
        # The worker has threads with connections of their own; a database in memory would lock them out.
        config["TEST"] = {"NAME": str(VAR_DIR / "test.sqlite3")}
    else:
        # A server that is gone, or cut off, is noticed in half a minute and not in a quarter of an hour. What the URL
        # says goes before this.
        config["OPTIONS"] = {
            "connect_timeout": 10,
            "keepalives_idle": 20,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 30_000,
            # The server would keep the locks of a host that was cut off in the middle of a transaction for hours, and
            # all others would wait for them.
            "options": "-c idle_in_transaction_session_timeout=15s",
            **config.get("OPTIONS", {}),
        }
    return config


DATABASES = {"default": database()}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]

LANGUAGE_CODE = "en"
TIME_ZONE = env.time_zone("TIME_ZONE", "UTC")
USE_I18N = True
FORMAT_MODULE_PATH = ["outreach.formats"]
LOGIN_REDIRECT_URL = "admin:index"
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}
DATA_UPLOAD_MAX_MEMORY_SIZE = 10 * 1024 * 1024

PUBLIC_URL = env.url("OUTREACH_PUBLIC_URL", "", ("https", "http")).rstrip("/")
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = PUBLIC_URL.startswith("https://")
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if env.boolean("BEHIND_HTTPS_PROXY", False) else None
X_FRAME_OPTIONS = "DENY"

EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"

# How long a worker may be silent before its deliveries are taken from it.
LEASE_SECONDS = env.whole("OUTREACH_LEASE_SECONDS", 30, 5, 600)
WORKERS = env.whole("OUTREACH_WORKERS", 2, 1, 64)

REDIS_URL = env.url("REDIS_URL", "", ("redis", "rediss", "unix"))
BROKER = env.choice("OUTREACH_BROKER", "database", ("database", "redis"))
if BROKER == "redis":
    env.needed("REDIS_URL", "OUTREACH_BROKER is redis")

OUTREACH = {
    "SECRET_KEYS": env.fernet_keys("OUTREACH_SECRET_KEYS", KEYS_HINT),
    "PUBLIC_URL": PUBLIC_URL,
    "LEASE_SECONDS": LEASE_SECONDS,
    "STUCK_SECONDS": env.whole("OUTREACH_STUCK_SECONDS", 90, 5, 3600),
    "AUDIENCE_DATABASES": env.named_urls("OUTREACH_AUDIENCE_DATABASES", ("postgres", "postgresql", "sqlite")),
    "OUTPUT_DIR": env.directory("OUTREACH_OUTPUT_DIR", BASE_DIR / "output"),
    "ALLOWED_NETWORKS": env.networks("OUTREACH_ALLOWED_NETWORKS"),
    "REDIS_URL": REDIS_URL,
    "DJANGO_BACKENDS": env.email_backends("OUTREACH_DJANGO_BACKENDS", EMAIL_BACKEND),
    "LISTED_PROBLEMS": env.whole("OUTREACH_LISTED_PROBLEMS", 1000, 10, 100_000),
    "IMPORT_MEGABYTES": env.whole("OUTREACH_IMPORT_MEGABYTES", 100, 1, 100),
    "METRICS_TOKEN": env.token("OUTREACH_METRICS_TOKEN"),
    "READY_NEEDS_WORKER": env.boolean("OUTREACH_READY_NEEDS_WORKER", True),
    "API_RATE": env.rate("OUTREACH_API_RATE", "1000/second"),
    "AUDIT_DAYS": env.whole("OUTREACH_AUDIT_DAYS", 400, 1, 36_500),
    # Nobody who reads a progress bar wants lines between, unless he says so.
    "LOG_LEVEL_CHOSEN": bool(env.text("OUTREACH_LOG_LEVEL")),
}


def broker() -> dict:
    """Where wake-ups wait: in a table of the default database, or in Redis."""
    if BROKER == "database" or not REDIS_URL:
        return {"orm": "default"}
    # An enqueue has no patience of its own: a Redis that is away or stands still would hold up the web request. A
    # worker waits one second for a task, so an answer may not take less. What the URL itself says goes before this.
    patience = "socket_connect_timeout=1&socket_timeout=2"
    return {"redis": f"{REDIS_URL}{'&' if '?' in REDIS_URL else '?'}{patience}"}


# Every value here answers one of django-q2's traps; docs/architecture.md says which.
Q_CLUSTER = {
    **broker(),
    "name": "outreach",
    "workers": WORKERS,
    "timeout": 120,
    "retry": 180,
    "queue_limit": 1,
    "bulk": 1,
    "poll": 0.2,
    "recycle": 0,
    "save_limit": -1,
    "ack_failures": True,
    "max_attempts": 1,
    "catch_up": False,
    "guard_cycle": 0.5,
    "log_level": "INFO",
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "outreach.access.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["outreach.access.permissions.ByModel"],
    "DEFAULT_THROTTLE_CLASSES": ["outreach.access.throttling.ApiThrottle"],
    # A form cannot say that a box is left as it is: what it leaves out is unticked. So a body is JSON.
    "DEFAULT_PARSER_CLASSES": ["delivery.api.parsing.JsonParser"],
    "DEFAULT_PAGINATION_CLASS": "delivery.api.pages.Pages",
    "DEFAULT_FILTER_BACKENDS": [
        "delivery.api.pages.Narrowing",
        "delivery.api.pages.Searching",
        "delivery.api.pages.Ordering",
    ],
    "DEFAULT_SCHEMA_CLASS": "outreach.schema.Schema",
    "EXCEPTION_HANDLER": "delivery.api.problems.handler",
}

SPECTACULAR_SETTINGS = {
    "TITLE": "Outreach",
    "DESCRIPTION": "The sender that operators can trust: campaigns set up, started, followed and mended by a program.",
    "VERSION": "1",
    "SCHEMA_PATH_PREFIX": "/api/v1/",
    "SERVE_INCLUDE_SCHEMA": False,
    "COMPONENT_SPLIT_REQUEST": True,
    # Fields of one name whose values are others.
    "ENUM_NAME_OVERRIDES": {
        "AudienceKind": "campaigns.models.AudienceKind",
        "ScheduleKind": "campaigns.models.ScheduleKind",
        "ProblemKind": "campaigns.models.ProblemKind",
        "ImportState": "campaigns.models.ImportState",
        "ImportPolicy": "campaigns.models.ImportPolicy",
        "RunState": "campaigns.models.RunState",
        "RunTrigger": "campaigns.models.Trigger",
        "EventKind": "delivery.models.EventKind",
        "DeliveryState": "delivery.models.DeliveryState",
        "CompositionState": "delivery.models.CompositionState",
        "CallbackState": "campaigns.models.CallbackState",
    },
    # The page comes with its own files: nothing is loaded from elsewhere.
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "validatorUrl": None},
}

LOG_LEVEL = env.choice("OUTREACH_LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR"))
LOG_FORMAT = env.choice("OUTREACH_LOG_FORMAT", "auto", logs.FORMATS)
LOGGING = logs.logging_config(LOG_LEVEL, LOG_FORMAT, debug=DEBUG)

ENVIRONMENT_PROBLEMS = tuple(env.problems)
