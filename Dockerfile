# One image for web, workers and migrations: compose.yaml and docs/deploying.md say how each is started.
# Python's version is the one that the tests run on.

FROM python:3.11-slim-bookworm AS packages
COPY requirements.txt /
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r /requirements.txt

FROM python:3.11-slim-bookworm
ENV PATH=/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PORT=8000
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /data outreach \
    && install --directory --owner=outreach --group=outreach /data
COPY --from=packages /venv /venv
WORKDIR /app
COPY manage.py ./
COPY campaigns ./campaigns
COPY delivery ./delivery
COPY outreach ./outreach
COPY static ./static
COPY templates ./templates
# The keys are made for this line alone, and gone with its shell.
RUN set -a && eval "$(python -m outreach.new_env)" \
    && OUTREACH_VAR_DIR=/tmp/build OUTREACH_OUTPUT_DIR=/tmp/build python manage.py collectstatic --noinput \
    && rm -r /tmp/build

# Execution logs and working files: a volume that web and workers share.
ENV OUTREACH_VAR_DIR=/data/var \
    OUTREACH_OUTPUT_DIR=/data/output
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/health/live', timeout=4)"]
# It listens on $PORT. Threads: a request mostly waits for the database.
CMD ["gunicorn", "outreach.wsgi", "--workers", "2", "--threads", "8", "--worker-tmp-dir", "/dev/shm", "--logger-class", "outreach.gunicorn_log.Logger"]
