# Two commands matter: `make demo` and `make test`. Both set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.he-infer-installed

# Set-up is redone only when the interpreter's environment is missing or the pins changed.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# The packages of the documentation come on top, when the site is built for the first time.
DOCS_STAMP := $(VENV)/.he-infer-docs-installed
$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

.PHONY: setup demo test test-slow docs bench leakage service lint clean

setup: $(STAMP)

demo: setup
	$(BIN)/he-infer demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/mypy

# A process for each core, a file of tests at a time: fixtures of a file are made once.
test: lint
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile

test-slow: setup
	$(BIN)/pytest -m slow

# The site in docs/_build/html; it needs no network to be read.
docs: $(DOCS_STAMP)
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env docs docs/_build/html
	@echo "docs/_build/html/index.html"

# The records behind the tables in docs/benchmarks.md; about ten minutes on one core.
bench: setup
	mkdir -p records
	$(BIN)/python -m benchmarks accuracy --case tutorial-cnn --backend simulated --json records/accuracy-tutorial.json
	$(BIN)/python -m benchmarks primitives --n 4096,8192,16384 --path ifma,avx2,scalar --json records/primitives.json
	$(BIN)/python -m benchmarks latency --case tutorial-cnn --threads 1,2 --against tenseal,seal --json records/latency-tutorial-cnn.json
	$(BIN)/python -m benchmarks latency --case mlp-784-128-10 --against tenseal,seal,helayers --json records/latency-mlp-784-128-10.json
	$(BIN)/python -m benchmarks throughput --case mnist-lola --threads 2 --batch 4096 --json records/throughput-mnist-lola.json

# The figures of docs/leakage.md and docs/published-figures.md; about an hour on two cores, and it resumes.
leakage: setup
	$(BIN)/python -m benchmarks leakage --reference --json records/leakage-reference.json
	$(BIN)/python -m benchmarks leakage --paired --json records/leakage-paired.json

# The claims about the service, each against a real server; about a quarter of an hour.
service: setup
	mkdir -p records
	$(BIN)/python -m benchmarks service --json records/service.json

clean:
	rm -rf $(VENV) build dist docs/_build records demo .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
