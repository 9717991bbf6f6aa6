# make demo · make test · make check: each sets up what it needs. PYTHON=… chooses the interpreter (3.11 or newer).

PYTHON ?= python3
VENV := .venv
# So that no process is left with the longest file when the others have ended.
LONGEST_FIRST := tests/faults tests/journey tests
BIN := $(VENV)/bin

.PHONY: demo test check peers conformance bench-ingest bench-stow bench-encode bench-deliver bench-inference clean

demo: $(VENV)/.runtime
	$(BIN)/overread demo $(if $(STUDY),--study "$(STUDY)")

test: $(VENV)/.dev peers
	$(BIN)/python -m pytest -m "not alone" -n 2 --dist loadfile $(LONGEST_FIRST)
	$(BIN)/python -m pytest -m alone --reruns 1 -rsR

check: $(VENV)/.dev
	$(BIN)/ruff check service tests
	$(BIN)/mypy
	$(BIN)/lint-imports

# The programs that overread is tested against. Without root or sudo the tests that need them are skipped, and say so.
peers:
	@sh tests/install-peers.sh

conformance: $(VENV)/.dev
	$(BIN)/python -m overread.conformance > deploy/CONFORMANCE.md

# Receiving, beside Orthanc and DCMTK: make bench-ingest ARGS="--rounds 5 --json figures.json"; see tests/bench/README.md.
bench-ingest: $(VENV)/.dev peers
	$(BIN)/python tests/bench/ingest.py $(ARGS)

bench-stow: $(VENV)/.dev peers
	$(BIN)/python tests/bench/stow.py $(ARGS)

# Delivering, beside DCMTK's storescu: make bench-deliver ARGS="--rounds 5 --json figures.json".
bench-deliver: $(VENV)/.dev peers
	$(BIN)/python tests/bench/deliver.py $(ARGS)

# Encoding, beside highdicom and dcmqi: make bench-encode ARGS="--rounds 5 --json figures.json".
bench-encode: $(VENV)/.dev peers
	$(BIN)/python tests/bench/encode.py $(ARGS)

# Reading, beside the bundle's own evaluator: make bench-inference ARGS="--rounds 5 --json figures.json".
bench-inference: $(VENV)/.dev
	$(BIN)/python tests/bench/inference.py $(ARGS)

$(VENV)/.runtime: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.runtime

$(VENV)/bin/python:
	@sh tests/make-venv.sh "$(PYTHON)" "$(VENV)"

clean:
	rm -rf $(VENV) demo-run .mypy_cache .ruff_cache .import_linter_cache
