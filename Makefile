# Two commands: `make demo` and `make test`. Each sets up .venv first, once for each change of the dependencies.
#   make demo                          run a real dataset through all flows and show live metrics (FULL=1: all of it)
#   make demo ARGS="--events e.csv --titles t.csv"
#   make test ARGS="tests/unit/infra/test_topics.py -k sentence"
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: demo test test-extended check bench results chaos fuzz mutants abuse clean

PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	"$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo "$$p" && break; done)
BIN := .venv/bin
READY := .venv/ready

demo: $(READY)
	$(BIN)/premiere demo $(if $(FULL),--full) $(ARGS)

# Tests of one file run in one process; two files run side by side (JOBS=).
test: $(READY)
	$(BIN)/python -m pytest --numprocesses $(or $(JOBS),2) --dist loadscope $(ARGS)

# The end-to-end tests that `make test` leaves out: short chaos and fuzz tests, every
# takeover, two deployments on one broker, rescaling, floods of records.
test-extended: $(READY)
	$(BIN)/python -m pytest --numprocesses $(or $(JOBS),2) --dist loadscope -m extended $(ARGS)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

# Chaos test: kill -9 flows, stop services for a minute, count lost or duplicated records. Writes chaos.json (SEED=, BROKER=embedded|apache|both).
chaos: $(READY)
	$(BIN)/python -m tests.tools.chaos --seed $(or $(SEED),0) --broker $(or $(BROKER),embedded) $(ARGS)

# Fuzz test: 100,000 random and mutated messages must not crash a flow, and each must be counted once.
fuzz: $(READY)
	$(BIN)/python -m tests.tools.fuzz $(ARGS)

# Mutation tests: each fault that is put into the code must make a test fail (ARGS="--only H5").
mutants: $(READY)
	for name in mutants limit_mutants trust_mutants; do $(BIN)/python -m tests.tools.$$name $(ARGS); done

# Abuse experiment: fake events, invented titles and launch floods against a simulated service. Writes abuse.json (ARGS="--seeds 1").
abuse: $(READY)
	$(BIN)/python -m infra.experiments.abuse $(ARGS)

# Run each speed benchmark with its reference (ARGS="--quick"). leave_one_out needs a Python with RecTools: run it by hand.
BENCHMARKS := bounded_state ingest latency loss memory publishing sustained training
bench: $(READY)
	for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$name $(ARGS); done

# Run all quality experiments and write their tables and figures: an hour or more; continues after an interruption (ARGS="--only ablations").
results: $(READY)
	$(BIN)/python -m infra.experiments.results $(ARGS)

# Delete the files written by the commands above, but not the environment.
clean:
	rm -rf .premiere build *.egg-info .pytest_cache .mypy_cache .ruff_cache report.json report.html chaos.json abuse.json
	find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@if [ -z "$(PYTHON)" ]; then echo "Premiere needs Python 3.11 or 3.12: put one on PATH, or name it with" \
		"'make PYTHON=/path/to/python3.11'." >&2; exit 1; fi
	@echo "Setting up .venv with $(PYTHON), and compiling: some minutes, once."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m model.warm_up
	@touch $(READY)
