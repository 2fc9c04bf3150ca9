PYTHON ?= python3
BIN := .venv/bin
# Trust what the system trusts, as pip does: a company's proxy signs with its own authority.
export UV_SYSTEM_CERTS := true
# Containers often set it: each of the interpreters that the tests start would compile every module.
unexport PYTHONDONTWRITEBYTECODE
TEST_PROCESSES ?= 2
# Three minutes in which nothing is to be found wrong, so that nothing else may keep the machine busy.
ALONE := tests/diagnosis/test_healthy_run.py
# Three minutes, too, of which nine tenths are waits: what runs beside it all the same.
QUIET := tests/adversity/test_express_timeouts.py tests/browser/test_guarded.py \
	tests/integration/database/test_timeouts.py tests/integration/doctor/test_harmless.py \
	tests/integration/fastapi/test_deadlines.py tests/integration/fastapi/test_live.py \
	tests/integration/pool/test_liveness.py

# What answers in a minute: no server, no browser, nothing that starts the interpreter many times.
FAST ?= tests/unit tests/contract tests/docs tests/typing
REPLICAS ?= 0
FAST_PYTHON ?= $(BIN)/python
COVERED ?= tests/unit tests/contract tests/integration

.PHONY: setup demo test test-fast coverage check bench docs lock format
setup: .venv/ready            ## make .venv with everything the project uses

demo: setup                   ## PostgreSQL, the users service, a load run; Ctrl-C ends it; REPLICAS=2 adds replicas
	$(BIN)/penstock demo --replicas $(REPLICAS)

test: setup                   ## every test that this machine can run
	$(BIN)/python -m tests.run -n $(TEST_PROCESSES) --dist loadfile $(addprefix --ignore=,$(ALONE) $(QUIET))
	@mkdir -p .cache
	@$(BIN)/python -m tests.run $(QUIET) >.cache/quiet.log 2>&1 & \
	$(BIN)/python -m tests.run $(ALONE); alone=$$?; \
	wait $$!; quiet=$$?; cat .cache/quiet.log; exit $$((alone | quiet))

test-fast: setup              ## what needs no server, in a minute
	$(FAST_PYTHON) -m pytest -n $(TEST_PROCESSES) --dist loadfile -m "not server and not slow" $(FAST)

coverage: setup               ## lines and branches that COVERED runs, by room; reported, not gated
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --ignore=tests/integration/benchmarks --cov --cov-report= $(COVERED)
	@$(BIN)/coverage report --sort=cover
	@for room in pool database express; do printf '%-10s %s %%\n' $$room "$$($(BIN)/coverage report --format=total --precision=1 --include="src/penstock/$$room/*")"; done

check: setup                  ## lint, format, spelling, shell, types, imports
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/codespell && $(BIN)/shellcheck -x install.sh tests/provisioning/*.sh && $(BIN)/mypy && $(BIN)/lint-imports

bench: setup                  ## every benchmark, side by side, into benchmarks/results/ too
	$(BIN)/python -m benchmarks --results benchmarks/results

docs: setup                   ## build the documentation into site/
	$(BIN)/zensical build --strict --clean

lock: setup                   ## resolve requirements.lock anew from pyproject.toml
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --all-extras --group dev --no-emit-package penstock --custom-compile-command "make lock" -o requirements.lock pyproject.toml

format: setup                 ## put the code into its standard form
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Penstock needs Python 3.11 or newer; set PYTHON=...")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments: apt-get install python3-venv (Debian, Ubuntu)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --requirement requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@
