PYTHON ?= python3
BIN := .venv/bin
# Two worker processes on two cores: a second thread in each would only get in the way.
export OMP_NUM_THREADS ?= 1

.PHONY: help demo test test-sets test-oldest test-newest checks fuzz long sanitize fuzz-kernel \
	coverage bench compare docs dist lint format clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 13

demo: .venv/installed ## Train the lesson's network, print its progress, draw disk.png
	$(BIN)/python -m skdisk

test: .venv/installed ## Run the tests and the examples in the documentation
	$(BIN)/python -m pytest -n 2

# Those that compare the ways to train and to predict. `make test` runs them with the best set.
SETS_TESTS := $(addsuffix .py,$(addprefix tests/test_,\
	callbacks fused net options prediction validation weights))
FIRST_CHECKS := tests/test_sklearn_checks.py::test_scikit_learn_check_passes
LIST_SETS := from skdisk._kernel import get_instruction_sets; print(*get_instruction_sets()[:-1])

test-sets: .venv/installed ## Run tests of training without the kernel and with each instruction set
	$(BIN)/python -m skdisk._kernel
	SKDISK_INSTRUCTION_SET=none $(BIN)/python -m pytest -n 2 -q $(FIRST_CHECKS)
	for name in none $$($(BIN)/python -c "$(LIST_SETS)"); do \
		echo "SKDISK_INSTRUCTION_SET=$$name"; \
		SKDISK_INSTRUCTION_SET=$$name $(BIN)/python -m pytest -n 2 -q $(SETS_TESTS) || exit; \
	done

# In an environment of its own, with the versions that a command lists. PyTorch is gigabytes where
# pip finds no CPU build of that version; TORCH names another: `make test-oldest TORCH=2.13.0`.
define test_with
	rm -rf build/$(1) && $(PYTHON) -m venv build/$(1)
	$(2) $(if $(TORCH),| sed 's/^torch==.*/torch==$(TORCH)/') >build/$(1)/constraints.txt
	build/$(1)/bin/pip install --quiet --constraint build/$(1)/constraints.txt --editable '.[dev]'
	build/$(1)/bin/python -m pytest -n 2
endef

test-oldest: ## Run the tests with the lowest versions that pyproject.toml allows
	$(call test_with,oldest,cat constraints-oldest.txt)

test-newest: ## Run the tests with the newest versions that there are, PyTorch as pinned
	$(call test_with,newest,grep '^torch==' constraints.txt)

checks: .venv/installed ## Run scikit-learn's checks on all drawn configurations (minutes)
	$(BIN)/python -m pytest -n 2 -m "long or not long" tests/test_sklearn_checks.py

# What the long forms of tests draw with.
SEED ?= 0

fuzz: .venv/installed ## Make 100,000 drawn calls and 3,000 sequences of them, with SEED=n (minutes)
	$(BIN)/python -m pytest -n 2 --long --seed $(SEED) tests/test_fuzz.py \
		tests/test_sequences.py

long: .venv/installed ## Interrupt fits everywhere, load a million mutated files (hours)
	$(BIN)/python -m pytest -n 2 --long --seed $(SEED) -m "long or not long" $(addprefix tests/test_,\
		extremes.py interrupts.py load.py mutated_files.py reproducibility.py saving.py \
		shared_estimators.py signals.py)

# The kernel is built anew, beside a copy of the package, with GCC's sanitizers. Leaks are not looked
# for: Python's own memory counts as leaked when it ends. Threads are watched without torch, whose
# own threads the sanitizer does not know, and at addresses that it can map.
comma := ,
BORDER_TESTS := $(CURDIR)/tests/test_kernel_border.py
THREADS_TESTS := $(CURDIR)/tests/test_kernel_threads.py
KERNEL_TESTS := $(CURDIR)/tests/test_kernel.py $(BORDER_TESTS) $(THREADS_TESTS)
PYTEST = $(abspath $(BIN))/python -m pytest -p no:cacheprovider
# The sanitizer stands in for functions of libstdc++, which torch brings later.
find_libraries = $(foreach name,$(1) stdc++,$(shell $(CC) -print-file-name=lib$(name).so))
define build_watched
	rm -rf build/$(1) && mkdir -p build/$(1) && cp -r skdisk build/$(1)
	rm -f build/$(1)/skdisk/_kernel/*.so
	CFLAGS="-g $(2)" LDFLAGS="$(2)" $(BIN)/python setup.py --quiet \
		build_ext --force --build-lib build/$(1) --build-temp build/$(1)-objects
endef

define test_addresses
	$(call build_watched,address,-fsanitize=address$(comma)undefined -fno-sanitize-recover=all)
	cd build/address && LD_PRELOAD="$(call find_libraries,asan)" \
		ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 $(PYTEST) $(1)
endef

sanitize: .venv/installed ## Run the kernel's tests under address, undefined and thread sanitizers
	$(call test_addresses,$(KERNEL_TESTS))
	$(call build_watched,thread,-fsanitize=thread)
	cd build/thread && LD_PRELOAD="$(call find_libraries,tsan)" TSAN_OPTIONS=halt_on_error=1 \
		setarch --addr-no-randomize $(PYTEST) --noconftest $(THREADS_TESTS)

TIME ?= 3600
fuzz-kernel: .venv/installed ## Draw a million calls of the kernel; run libFuzzer TIME seconds
	$(call test_addresses,--long --seed $(SEED) $(BORDER_TESTS))
	@command -v clang >/dev/null || { echo "libFuzzer needs clang, which is not here."; exit 1; }
	FUZZ_SECONDS=$(TIME) $(PYTEST) -m long --long --seed $(SEED) $(BORDER_TESTS)

# The kernel's branches by Clang, of its own tests; the package's by coverage.py, of the suite. A
# signal within coverage.py leaves its lock held for ever, and Python 3.11 cannot begin many threads
# at once that are traced: the files with tests of these are left out.
COVERED = $(CURDIR)/build/coverage
LLVM = $(dir $(realpath $(shell command -v clang)))
coverage: export CC = clang
coverage: .venv/installed ## List the branches that no test takes (minutes)
	@command -v clang >/dev/null || { echo "llvm-cov needs clang, which is not here."; exit 1; }
	$(call build_watched,coverage,-fprofile-instr-generate -fcoverage-mapping)
	cd $(COVERED) && LLVM_PROFILE_FILE=$(COVERED)/%p.profraw $(PYTEST) $(KERNEL_TESTS)
	$(LLVM)llvm-profdata merge -sparse $(COVERED)/*.profraw -o $(COVERED)/kernel.profdata
	$(LLVM)llvm-cov export -instr-profile $(COVERED)/kernel.profdata \
		$(COVERED)/skdisk/_kernel/*.so >$(COVERED)/kernel.json
	$(BIN)/coverage run -m pytest -n 2 \
		$(foreach name,signals shared_estimators,--ignore=tests/test_$(name).py)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage json --quiet -o $(COVERED)/python.json
	$(BIN)/python tests/coverage_page.py $(COVERED)/kernel.json $(COVERED)/python.json

bench: .venv/installed ## Measure skdisk beside its peers: tables and a picture in benchmarks/results
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	env -u OMP_NUM_THREADS $(BIN)/python benchmarks/run.py

BEFORE ?= HEAD~1
compare: .venv/installed ## Compare the speed of HEAD with that of BEFORE; fail if it is 1.2 times as slow
	$(BIN)/python benchmarks/compare.py $(BEFORE) HEAD

docs: .venv/docs ## Build the site in build/site, fetching nothing, and look at each page in Chromium
	$(BIN)/sphinx-build --fail-on-warning --keep-going -d build/doctrees docs build/site
	$(BIN)/python -m pytest -n 2 -q docs/test_site.py

# In an environment that has only the file and what it asks for, and away from the checkout. A
# kernel must be there: fused=True refuses to train without one.
TRIAL := from skdisk import MLPDiskClassifier, make_disk; X, y = make_disk(1000, random_state=0); \
	clf = MLPDiskClassifier(fused=True, random_state=0).fit(X, y); print(clf.predict(X[:9]), y[:9])
TRY := build/try/bin
define try_installed
	rm -rf build/try && $(PYTHON) -m venv build/try
	$(TRY)/pip install --quiet --constraint constraints.txt $(1)
	cd build && try/bin/python -m skdisk._kernel && try/bin/python -c "$(TRIAL)"
endef
QUICK_TESTS := $(addsuffix .py,$(addprefix tests/test_,disk fit installation layout))

dist: .venv/installed ## Build wheel and sdist, check both, try both in clean environments
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dist]'
	rm -rf dist build/unpacked && mkdir -p build/unpacked
	$(BIN)/check-manifest
	CFLAGS=-g0 $(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl
	$(BIN)/abi3audit --strict dist/*.whl
	$(call try_installed,dist/*.whl)
	$(call try_installed,dist/*.tar.gz)
	tar --extract --file dist/*.tar.gz --directory build/unpacked --strip-components 1
	$(TRY)/pip install --quiet --constraint constraints.txt --editable 'build/unpacked[dev]'
	cd build/unpacked && ../try/bin/python -m pytest -n 2 $(QUICK_TESTS)

lint: .venv/installed ## Check style, docstrings and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/installed ## Format the code and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove all that the other targets made
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis disk.png
	rm -rf docs/gallery docs/guide/generated docs/lesson/generated
	rm -f skdisk/_kernel/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/installed: pyproject.toml setup.py constraints.txt $(wildcard skdisk/_kernel/*.[ch])
	$(PYTHON) -m venv .venv
	rm -f skdisk/_kernel/*.so
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

.venv/docs: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@
