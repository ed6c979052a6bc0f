# make train     set up, then train; TASK=, STEPS=, LOGDIR=, CONFIGS= and ARGS="--key value" change what
# make test      set up, then linters and the short tests
# make test-all  the long tests too (installs Chromium)     make faults  the fault injections, as long as they take
# make gpu-check  is the NVIDIA card ready to train, and what is missing? ARGS="--skip speed" takes less time
# make report    a page on the runs in plots/results/, as plots/out/report.html
# make docs      the documentation site, with an API reference, into build/site/
# make lock      resolve setup.py's requirements anew into the lock files

PYTHON_BIN := .venv/bin/python
UV_COMPILE := .venv/bin/uv pip compile setup.py --extra dev --extra mp4 --extra plots --extra atari \
	--extra gym-envs --extra vizdoom --extra sweep --extra docs --universal --python-version 3.11 \
	--generate-hashes --no-annotate --no-header --quiet

TASK ?= dmc_walker_walk
STEPS ?=
LOGDIR ?= runs/
# The preset that fits the machine: full size with a GPU, small without.
CONFIGS ?= $(shell sh .ci/has_gpu.sh || echo small)
ARGS ?=
TRAIN = --task $(TASK) --logdir $(LOGDIR) \
	$(if $(CONFIGS),--configs $(CONFIGS)) $(if $(STEPS),--steps $(STEPS)) $(ARGS)

.PHONY: setup train test test-all faults lint report docs lock gpu-check clean

setup:
	@.ci/setup.sh

# Set-up checks the words first, because it takes minutes.
train: export TRAIN_WORDS = $(TRAIN)
train: setup
	$(PYTHON_BIN) -m dreamer.run $(TRAIN)

lint: setup
	$(PYTHON_BIN) -m ruff check .
	$(PYTHON_BIN) -m mypy

test: lint
	$(PYTHON_BIN) -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder --durations 10

test-all: lint
	@.ci/browser.sh
	$(PYTHON_BIN) -m pytest -q -m "not faults"

faults: setup
	PROMISES=promises.json $(PYTHON_BIN) -m pytest -q -m "" tests/faults

gpu-check: setup
	$(PYTHON_BIN) -m dreamer.gpu_check $(ARGS)

report: setup
	mkdir -p plots/out
	$(PYTHON_BIN) plots/report.py --indir plots/results --out plots/out/report.html

# Strict: a broken link fails (but not with --quiet, which hides the warnings that strict counts).
docs: setup
	NO_MKDOCS_2_WARNING=1 $(PYTHON_BIN) -m mkdocs build

# The GPU's lock takes the same versions and adds CUDA's libraries.
lock: setup
	$(UV_COMPILE) --upgrade -o requirements.lock
	$(UV_COMPILE) --upgrade --extra gpu -c requirements.lock -o requirements-gpu.lock

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
