# make        environment, every experiment, figures, paper; then where the paper is, and the verdicts
# make test   the same environment, then all tests

PYTHON ?= python3
CORES ?= 8
BIN = .venv/bin

.PHONY: all test clean

all: .venv/installed
	$(BIN)/snakemake --cores $(CORES)
	@echo
	@$(BIN)/python -m secondlook claims --show
	@echo
	@echo "The paper: results/report/report.pdf"

test: .venv/installed
	$(BIN)/python -m pytest -n 2

# pip from outside fills the environment, so that a Python without ensurepip will do.
.venv/installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Second Look needs Python 3.11 or newer: make PYTHON=...")'
	$(PYTHON) -m venv --without-pip --clear .venv
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --requirement requirements.lock
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

clean:
	find results -mindepth 1 -maxdepth 1 ! -name recorded -exec rm -rf {} +
