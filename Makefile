# `make demo` and `make test` are all a newcomer needs; both install what they need into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo test test-as-ordinary-user check audit bench campaign lock clean

install: $(STAMP)

# uv installs the locked set in seconds; where it cannot reach the package index, pip does the same from the same lock.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Kontor needs Python 3.11 or newer; set PYTHON=…"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the locked packages into $(VENV) …"
	@awk '/^uv==/{on=1;print;next} on&&/^    --hash/{print;next} {on=0}' requirements.lock > $(VENV)/uv.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.lock
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip sync --quiet --require-hashes requirements.lock \
	  || { $(BIN)/python -m ensurepip >/dev/null 2>&1; $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock; }
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --offline -e . \
	  || $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

demo: $(STAMP)
	@$(BIN)/kontor demo

test: $(STAMP)
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# Root's run says nothing about everybody else's: as root, the same suite as an unprivileged account, in a copy.
test-as-ordinary-user: $(STAMP)
	@$(BIN)/python -m tests.as_ordinary_user

check: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

# Without a network: the installed packages against the lock, and against a downloaded database of advisories if given.
audit: $(STAMP)
	@$(BIN)/python -m tests.audit $(ADVISORIES)

BENCHES := $(sort $(patsubst tests/benchmarks/bench_%.py,%,$(wildcard tests/benchmarks/bench_*.py)))
bench: $(STAMP)
	@for name in $(BENCHES); do echo "== $$name"; $(BIN)/python -m tests.benchmarks.bench_$$name || exit 1; done

# The same tests with hundreds of seeds, printed as they pass: kills at any instant, files in any order. Then the long
# ones that `make test` leaves out.
CAMPAIGN ?= 50
SEEDED := $(addprefix tests/fault/test_, kills.py feed_points.py catalog_kills.py catalog_faults.py sending_kills.py sending_points.py \
  backup_faults.py backup_wal.py retention_kills.py quality_kills.py concurrency.py confined_reading.py) \
  $(addprefix tests/database/test_, any_order.py catalog_any_order.py)
campaign: $(STAMP)
	@KONTOR_CAMPAIGN_FACTOR=$(CAMPAIGN) $(BIN)/python -m pytest -s $(SEEDED)
	@KONTOR_CAMPAIGN_FACTOR=2 $(BIN)/python -m pytest -m campaign

# Versions change on purpose only: edit pyproject.toml, then `make lock` and read the difference.
lock: $(STAMP)
	@$(BIN)/uv pip compile pyproject.toml --extra dev --extra duplicates --extra dask --extra traces --universal \
	  --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --quiet \
	  --output-file requirements.lock > /dev/null

clean:
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache kontor.egg-info
