# make demo   everything from nothing: a real campaign into a local mail catcher
# make test   the whole suite, on SQLite and on PostgreSQL
# make run    web server and worker cluster, with the demo's data to look at

PYTHON ?= python3
BIN := .venv/bin
MANAGE := $(BIN)/python manage.py

.PHONY: demo test test-sqlite test-postgres run bench bench-api bench-cluster bench-http bench-limits bench-sequence bench-simulate lint format lock env clean

demo: .venv/.runtime env
	@$(MANAGE) migrate --verbosity 0
	@$(MANAGE) demo

test: test-sqlite test-postgres

test-sqlite: .venv/.dev
	$(BIN)/pytest -n auto --database sqlite

test-postgres: .venv/.dev
	$(BIN)/pytest -n auto --database postgres

run: .venv/.runtime env
	@$(MANAGE) migrate --verbosity 0
	@$(MANAGE) collectstatic --noinput --verbosity 0
	@$(MANAGE) demo --prepare
	@$(MANAGE) up

bench: .venv/.dev
	$(BIN)/python -m tests.benchmarks.throughput

bench-api: .venv/.dev env
	$(BIN)/python -m tests.benchmarks.api

bench-cluster: .venv/.dev env
	$(BIN)/python -m tests.benchmarks.cluster

bench-http: .venv/.dev env
	$(BIN)/python -m tests.benchmarks.http_calls

bench-limits: .venv/.dev env
	$(BIN)/python -m tests.benchmarks.limits

bench-sequence: .venv/.dev env
	$(BIN)/python -m tests.benchmarks.sequence

bench-simulate: .venv/.dev env
	$(BIN)/python -m tests.benchmarks.simulation

lint: .venv/.dev env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MANAGE) makemigrations --check --dry-run
	@! grep -n '://' requirements*.txt || (echo 'A lock file names a host.'; exit 1)

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# A .env with fresh keys, once.
env: .env
.env: | .venv/.runtime
	@$(BIN)/python -m outreach.new_env > .env.new && chmod 600 .env.new && mv .env.new .env
	@echo "Wrote .env with fresh keys."

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || (echo 'Python 3.11 or newer is needed: make PYTHON=python3.12 ...'; exit 1)
	@$(PYTHON) -m venv .venv || (echo 'No virtual environment could be made. On Debian: apt-get install python3-venv'; exit 1)

.venv/.runtime: requirements.txt | .venv/bin/pip
	@echo "Installing what Outreach runs on ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

.venv/.dev: requirements-dev.txt | .venv/bin/pip
	@echo "Installing what the tests need ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@ .venv/.runtime

# The only target that needs uv: pip install uv
LOCK := uv pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header --no-annotate
lock:
	cd requirements && $(LOCK) runtime.in -o ../requirements.txt
	cd requirements && $(LOCK) dev.in -o ../requirements-dev.txt

clean:
	rm -rf .venv var output staticfiles .pytest_cache .ruff_cache .hypothesis
