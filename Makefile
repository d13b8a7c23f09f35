# make              environment, every experiment, figures, paper; then where the paper is, and the verdicts
# make test         the same environment, then all tests
# make reproduce    everything twice from the last commit, in clean folders: are tables, verdicts and figures the same to the byte,
#                   and README.md what the build makes it?
# make test-slurm   the workflow on a real Slurm of one node, which it starts and stops

PYTHON ?= python3
CORES ?= 8
SCALE ?= paper
BIN = .venv/bin

.PHONY: all test reproduce test-slurm clean

all: .venv/installed
	$(BIN)/snakemake --cores $(CORES)
	@echo
	@$(BIN)/python -m secondlook claims --show
	@echo
	@echo "The paper: results/report/report.pdf"

test: .venv/installed
	$(BIN)/python -m pytest -n 2

# The package of each clone comes before the installed one. Recorded stages are measured at scale smoke, and left out there.
reproduce: .venv/installed
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	for build in first second; do \
		git clone --quiet --no-hardlinks . "$$folder/$$build" && \
		(cd "$$folder/$$build" && PYTHONPATH=src $(abspath $(BIN))/snakemake --cores $(CORES) --quiet all --config scale=$(SCALE)) || exit 1; \
	done; \
	results=results$(if $(filter smoke,$(SCALE)),/smoke); \
	PYTHONPATH=src $(BIN)/python -m secondlook compare "$$folder/first/$$results" "$$folder/second/$$results" && \
	git -C "$$folder/first" diff --exit-code -- README.md report/readme

test-slurm: .venv/installed
	tests/slurm/run.sh $(BIN)/python

# pip from outside fills the environment, so that a Python without ensurepip will do.
.venv/installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Second Look needs Python 3.11 or newer: make PYTHON=...")'
	$(PYTHON) -m venv --without-pip --clear .venv
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --requirement requirements.lock
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

clean:
	find results -mindepth 1 -maxdepth 1 ! -name recorded -exec rm -rf {} +
