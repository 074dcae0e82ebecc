# Two commands on a fresh machine: `make demo` and `make test`. Both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

PEERS := .venv-peers
PEER_PYTHON ?= $(PEERS)/bin/python

.PHONY: demo test check bench bits bench-peers faults fuzz fuzz-guided pictures setup clean

demo: setup
	$(BIN)/workbench demo --fault permuted_rope; test $$? -le 1 # 1 says that the copies differ, as they should

test: setup
	$(BIN)/pytest

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest

# ROWS="ggml-* weights" selects rows, BENCH_QUICK=1 takes smaller models; results.json goes to .bench
bench: setup
	$(BIN)/python -m benchmarks --peer-python $(PEER_PYTHON) $(ROWS)

# how much of llama.cpp's run of trained models has the bits of the ggml path: three that the Python index has, in TYPES
# (all by default); FILES="a.gguf b.gguf" takes other files
bits: setup $(if $(filter $(PEERS)/%,$(PEER_PYTHON)),$(PEERS)/ready)
	$(BIN)/python -m benchmarks.bits --peer-python $(PEER_PYTHON) $(if $(TYPES),--types $(TYPES) --) $(FILES)

# KINDS="scaled* rope*" selects kinds of faults; runtime faults need the interpreter of the peers
faults: setup $(if $(filter $(PEERS)/%,$(PEER_PYTHON)),$(PEERS)/ready)
	$(BIN)/python -m tests.faults --peer-python $(PEER_PYTHON) --json faults.json $(KINDS)

# N=1000000 goes on for hours, SEED=2000 begins where `make test` ends, FORMATS="gguf apr" selects; finds go to .fuzz
N ?= 100000
SEED ?= 2000
fuzz: setup
	$(BIN)/python -m tests.fuzz --files $(N) --seed $(SEED) $(FORMATS)

# guided by coverage, SECONDS for each format; atheris has an environment of its own
SECONDS ?= 300
fuzz-guided: .venv-fuzz/ready
	for format in $(or $(FORMATS),gguf apr safetensors dump); do \
	  nice .venv-fuzz/bin/python -m tests.fuzz.guided $$format -max_total_time=$(SECONDS) || exit 1; done

.venv-fuzz/ready: pyproject.toml
	$(PYTHON) -m venv .venv-fuzz
	.venv-fuzz/bin/pip install --quiet --disable-pip-version-check -e ".[dev]" "atheris>=3.0"
	@touch $@

# the pictures of README, taken from the app
pictures: setup
	TEXTUAL_COLOR_SYSTEM=truecolor $(BIN)/python docs/make_pictures.py

# torch alone is asked of its own index, where it comes without GPU libraries; if that is not reached, PyPI has it too
TORCH_INDEX := https://download.pytorch.org/whl/cpu

bench-peers: $(PEERS)/ready

$(PEERS)/ready: benchmarks/peers/requirements.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -c "import torch" 2> /dev/null || $(PEERS)/bin/pip install --quiet --disable-pip-version-check \
	  --no-deps --retries 1 --timeout 10 --extra-index-url $(TORCH_INDEX) $$(grep ^torch== $<)
	CMAKE_ARGS=-DLLAVA_BUILD=OFF $(PEERS)/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

setup: $(VENV)/ready

$(VENV)/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "layer-workbench needs Python 3.11 or newer; run make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) .venv-fuzz .fuzz .mypy_cache .ruff_cache .pytest_cache
