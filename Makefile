# Two commands do all set-up: `make demo` runs the main job, `make test` passes the tests.
PYTHON ?= python3
BIN := .venv/bin
# Where PyTorch without CUDA comes from: on Linux the public index has the build for NVIDIA GPUs.
# `make install CPU=1` takes it from there; INDEX names another place that has it.
CPU_INDEX := https://download.pytorch.org/whl/cpu
INDEX ?= $(if $(CPU),$(CPU_INDEX))
PIP_OPTIONS := --constraint constraints.txt \
	$(if $(CPU)$(INDEX),--constraint constraints-cpu.txt) \
	$(if $(INDEX),--extra-index-url $(INDEX))
PYTEST := $(BIN)/python -m pytest
# Files of tests at a time; each takes 1.5 GB.
JOBS ?= 2
# All C++ of the package and of the C++ program.
CPP := $(wildcard src/densepath/kernels/*.?pp src/densepath/kernels/training/*.?pp \
	tests/kernels/*.?pp src/densepath/npu/firmware/*.cc \
	deploy/cpp/*/*.?pp deploy/cpp/*/*/*.?pp)
# Nobody is asked for news of the tools themselves: docs/dependencies.md, "Telemetry".
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: install install-npu demo demo-npu test test-slow test-npu mutants lint format cpp web dist clean

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "densepath needs Python 3.11 or newer; name one: make PYTHON=python3.12 install"'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(PIP_OPTIONS) --editable '.[dev]'
	touch $@

# What INT8 for phones and NPUs takes besides: ExecuTorch, LiteRT, Vela. docs/quantization.md
install-npu: .venv/.installed-npu

.venv/.installed-npu: .venv/.installed
	$(BIN)/python -m pip install --quiet $(PIP_OPTIONS) --editable '.[dev,npu]'
	touch $@

demo: install
	$(BIN)/python examples/demo.py

# From Paddle's X.pdmodel and X.pdiparams to a profile of an NPU; MODEL and DATA name others.
demo-npu: install-npu
	$(BIN)/python examples/demo_npu.py $(MODEL) $(if $(DATA),--data $(DATA)) $(DEMO)

# The fast tier: all but what is marked `slow`. CONTRIBUTING.md
test: install
	$(PYTEST) -n $(JOBS) --dist loadfile -m "not slow"

# The rest: browsers, launchers, long pages, kernels of whole networks.
test-slow: install
	$(PYTEST) -n $(JOBS) --dist loadfile -m slow

test-npu: install-npu
	$(PYTEST) -m npu

# Changes the source in N drawn places, or all over AT, one at a time, in a copy. CONTRIBUTING.md
N ?= 100
SEED ?= 1
mutants: install
	$(BIN)/python benchmarks/mutants.py --count $(N) --seed $(SEED) $(if $(AT),--at $(AT))

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/clang-format --dry-run --Werror $(CPP)

format: install
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(CPP)

# The wheel and the source distribution, in dist.
dist: install
	$(BIN)/python -m build

# The C++ program, build/cpp/densepath-predict; it says what is missing. docs/cpp.md
cpp: install
	@command -v cmake >/dev/null || { echo "cmake is missing: apt-get install cmake g++ libjpeg-dev libtiff-dev zlib1g-dev nlohmann-json3-dev"; exit 1; }
	cmake -S deploy/cpp -B build/cpp -DDENSEPATH_PYTHON=$(abspath $(BIN)/python)
	cmake --build build/cpp --parallel

# The browser page with ONNX Runtime beside it, deploy/web/vendor. docs/web.md
web:
	@command -v npm >/dev/null || { echo "npm is missing: apt-get install nodejs npm"; exit 1; }
	cd deploy/web && npm ci && npm run build

clean:
	rm -rf .venv demo-output demo-npu-output build dist deploy/web/node_modules deploy/web/vendor
