# make              environment, every experiment, figures, paper; then where the paper is, and the verdicts
# make test         the same environment, then all tests
# make check        what a change should pass every few minutes: lint, format, boundaries, the library against exact references
# make test-processors  the numerical tests under three instruction sets: what passes here passes on another processor
# make benchmark    what the study and its tests take on this machine: results/benchmarks/project.csv
# make reproduce    everything twice from the last commit, in clean folders: are tables, verdicts and figures the same to the byte,
#                   and README.md and VERDICTS.md what the build makes them?
# make test-slurm   the workflow on a real Slurm of one node, which it starts and stops
# make test-frameworks   the examples of docs/frameworks.md with Lightning, accelerate and transformers, which it installs
# make test-browser the page to explore in a real browser, Debian's chromium
# make docs         the library's reference from its docstrings: results/reference/index.html; it installs pdoc

PYTHON ?= python3
CORES ?= 8
SCALE ?= paper
BIN = .venv/bin

.PHONY: all test check test-processors benchmark reproduce test-slurm test-frameworks test-browser docs clean

all: .venv/installed
	@$(BIN)/python workflow/unlock.py
	$(BIN)/snakemake --cores $(CORES)
	@echo
	@$(BIN)/python -m secondlook claims --show
	@echo
	@echo "The paper: results/report/report.pdf; all else: results/report/supplement.pdf"

test: .venv/installed
	$(BIN)/python -m pytest -n 2

EXACT = boundaries statistics claims parameters products dense curvature spectrum adahessian newton rules
check: .venv/installed
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/snakefmt --quiet --check Snakefile workflow
	$(BIN)/python -m pytest -q -n 2 $(EXACT:%=tests/*/test_%.py)

# The tests whose numbers come from the processor's own instructions: of library and experiments all but faults and image files.
OTHERS = experiments/test_faults library/test_images
NUMERICAL = $(filter-out $(OTHERS:%=tests/%.py),$(wildcard tests/library/test_*.py tests/experiments/test_*.py)) \
	$(foreach name,claims comparison properties statistics,tests/study/test_$(name).py)
test-processors: .venv/installed
	@for set in "ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_CBWR=COMPATIBLE" \
			"ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_CBWR=AVX2" "ONEDNN_MAX_CPU_ISA=AVX512_CORE"; do \
		echo "$$set"; env $$set $(BIN)/python -m pytest -q -n 2 $(NUMERICAL) || exit 1; \
	done

benchmark: .venv/installed
	$(BIN)/python tests/benchmark.py

# The package of each clone comes before the installed one. Recorded stages are measured at scale smoke, and left out there.
reproduce: .venv/installed
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && snakemake="$$(pwd)/$(BIN)/snakemake" && \
	for build in first second; do \
		git clone --quiet --no-hardlinks . "$$folder/$$build" && \
		(cd "$$folder/$$build" && PYTHONPATH=src "$$snakemake" --cores $(CORES) --quiet all --config scale=$(SCALE)) || exit 1; \
	done; \
	results=results$(if $(filter smoke,$(SCALE)),/smoke); \
	PYTHONPATH=src $(BIN)/python -m secondlook compare "$$folder/first/$$results" "$$folder/second/$$results" && \
	git -C "$$folder/first" diff --exit-code -- README.md VERDICTS.md report/readme

test-slurm: .venv/installed
	tests/slurm/run.sh $(BIN)/python

INSTALL = $(PYTHON) -m pip --python $(BIN)/python install --quiet --no-build-isolation --editable
FILES = $(wildcard src/secondlook/optim/*.py src/secondlook/curvature/*.py)

test-frameworks: .venv/installed
	$(INSTALL) '.[frameworks]'
	$(BIN)/python -m pytest -k frameworks tests/repository/test_documentation.py

test-browser: .venv/installed
	@command -v chromium > /dev/null || { echo "make test-browser needs chromium: apt-get install chromium"; exit 1; }
	$(BIN)/python -m pytest -q -n 0 tests/study/test_browser.py

# A page for each package and each file; curvature names two of its files itself.
docs: .venv/installed
	$(INSTALL) '.[docs]'
	$(BIN)/pdoc --template-directory docs/template --output-directory results/reference secondlook.optim secondlook.curvature \
		$(subst /,.,$(patsubst src/%.py,%,$(filter-out %/__init__.py %/blocks.py %/dense.py,$(FILES))))
	@echo "The reference: results/reference/index.html"

# pip from outside fills the environment, so that a Python without ensurepip will do.
.venv/installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Second Look needs Python 3.11 or newer: make PYTHON=...")'
	@test ! -L .venv || { echo '.venv is a link, and what it leads to would be emptied: remove the link first'; exit 1; }
	$(PYTHON) -m venv --without-pip --clear .venv
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --requirement requirements.lock
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

clean:
	find results -mindepth 1 -maxdepth 1 ! -name recorded -exec rm -rf {} +
