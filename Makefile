PYTHON ?= python3
BIN := .venv/bin
# Two worker processes on two cores: a second thread in each would only get in the way.
export OMP_NUM_THREADS ?= 1

.PHONY: help demo test checks bench lint format clean

help: ## List the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: .venv/installed ## Train the lesson's network, print its progress, draw disk.png
	$(BIN)/python -m skdisk

test: .venv/installed ## Run the tests and the examples in the documentation
	$(BIN)/python -m pytest -n 2

checks: .venv/installed ## Run scikit-learn's checks on all drawn configurations (minutes)
	$(BIN)/python -m pytest -n 2 -m "long or not long" tests/test_sklearn_checks.py

bench: .venv/installed ## Measure skdisk beside its peers: tables and a picture in benchmarks/results
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	env -u OMP_NUM_THREADS $(BIN)/python benchmarks/run.py

lint: .venv/installed ## Check style, docstrings and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/installed ## Format the code and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove all that the other targets made
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis disk.png
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
