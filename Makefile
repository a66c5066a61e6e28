# make demo    set everything up and let the embedded model answer
# make test    set everything up and run the tests
# make models  download the real models that some tests load, 350 MB, into build/models
# make bench   set everything up, with what it is compared with beside it, and measure
# make lint    ruff, pyright, clang-format, and whether the stub is up to date
# make stubs   write cyllama/llama/llama_cpp.pyi anew
# make clean   remove everything that was built
#
# Needs python3 >= 3.10 (with venv and headers), a C++ compiler and make. Everything else goes into .venv/ and build/.

PYTHON ?= python3
CXX ?= g++
PIP_ARGS ?=
PYTEST_ARGS ?=

BIN := .venv/bin
STAMP := .venv/.stamps
NATIVE := CMakeLists.txt pyproject.toml $(wildcard ext/* llama.cpp/CMakeLists.txt llama.cpp/*.cpp llama.cpp/cmake/*)
JOBS := $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)

.PHONY: demo test models bench lint format stubs clean check FORCE
.SUFFIXES:

demo: $(STAMP)/install
	@$(BIN)/cyllama --stats "Tell me a story about a fox."

test: $(STAMP)/test
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

models: $(STAMP)/test
	@$(BIN)/python tests/real_models.py $(PIP_ARGS)

bench: $(STAMP)/bench $(STAMP)/peers
	@missed=0; for name in decode chat concurrency agents; do $(BIN)/python benchmarks/$$name.py || missed=1; done; exit $$missed

lint: $(STAMP)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror ext/*.cpp ext/*.hpp llama.cpp/*.cpp
	$(BIN)/pyright
	$(BIN)/pyright --pythonversion 3.10 cyllama
	@$(BIN)/python -m nanobind.stubgen -q -m cyllama.llama.llama_cpp -o build/llama_cpp.pyi
	@cmp build/llama_cpp.pyi cyllama/llama/llama_cpp.pyi || { echo "The stub is out of date: make stubs" >&2; exit 1; }

format: $(STAMP)/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i ext/*.cpp ext/*.hpp llama.cpp/*.cpp

stubs: $(STAMP)/dev
	$(BIN)/python -m nanobind.stubgen -m cyllama.llama.llama_cpp -o cyllama/llama/llama_cpp.pyi

clean:
	rm -rf .venv build .pytest_cache .ruff_cache .hypothesis

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

# An editable install: Python files are used where they lie, the extension is compiled into build/. Of pip's words only the
# compiler's progress is shown; all of them are in .venv/install.log.
$(STAMP)/install: $(NATIVE) $(STAMP)/modules | $(STAMP)/venv
	@echo "Building cyllama; the first time, llama.cpp is compiled too, which takes some minutes."
	@CMAKE_BUILD_PARALLEL_LEVEL=$(JOBS) $(BIN)/python -m pip install --verbose --disable-pip-version-check $(PIP_ARGS) -e . \
	  > .venv/install.log 2>&1 & pid=$$!; \
	tail -n +1 -f --pid=$$pid .venv/install.log 2>/dev/null | awk -v tty=$$(test -t 1 && echo 1) "$$PROGRESS" || true; \
	wait $$pid || { tail -n 40 .venv/install.log >&2; echo "The build failed; all of its output is in .venv/install.log" >&2; exit 1; }
	@touch $@

# ninja's lines "[12/277] Building CXX object ...": one that is written over on a terminal, every 25th elsewhere.
define PROGRESS
/^ *\[[0-9]+\/[0-9]+\]/ {
    sub(/^ */, ""); sub(/(CXX|C) object .*\//, "")
    if (tty) { printf "\r%-78.78s", $$0; fflush(); open = 1 }
    else if (n++ % 25 == 0) { print; fflush() }
}
END { if (open) print "" }
endef
export PROGRESS

# With cyllama installed, these add what the extra names and leave cyllama itself alone.
$(STAMP)/test $(STAMP)/dev: $(STAMP)/install
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) 'cyllama[$(@F)]'
	@touch $@

# What benchmarks/ compares with: llama.cpp's own tools, built the same way, and the extension with OpenMP.
REQUIREMENTS = $(shell $(BIN)/python -c 'import re; print(*re.findall(r"\"(.+?)\"", re.search(r"^requires = (.*)", open("pyproject.toml").read(), re.M)[1]))')
NATIVE_CMAKE = $(CURDIR)/build/venv/bin/cmake -G Ninja -S . -DPython_EXECUTABLE=$(CURDIR)/build/venv/bin/python \
  -DCMAKE_MAKE_PROGRAM=$(CURDIR)/build/venv/bin/ninja

$(STAMP)/bench: $(NATIVE) $(STAMP)/test
	@echo "Building llama-bench, llama-batched-bench and llama-server, and cyllama with OpenMP."
	@$(PYTHON) -m venv build/venv
	@build/venv/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) cmake ninja pydantic $(REQUIREMENTS)
	@$(NATIVE_CMAKE) -B build/tools -DCYLLAMA_BUILD_TOOLS=ON > build/tools.log
	@build/venv/bin/cmake --build build/tools --target tools
	@$(NATIVE_CMAKE) -B build/openmp -DGGML_OPENMP=ON > build/openmp.log
	@build/venv/bin/cmake --build build/openmp --target llama_cpp
	@touch $@

# The other binding that benchmarks/ compares with, and its LangChain provider, in a venv of their own: compiled here, for this
# processor and with its own defaults. Pinned, so that figures of two machines are of the same versions. Order-only: two
# compilers at once are too many.
$(STAMP)/peers: | $(STAMP)/bench
	@echo "Building llama-cpp-python, which takes some minutes."
	@$(PYTHON) -m venv build/peers
	@CMAKE_BUILD_PARALLEL_LEVEL=$(JOBS) build/peers/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) \
	  --no-binary llama-cpp-python llama-cpp-python==0.3.36 langchain-community==0.4.2 langchain==1.4.7
	@touch $@
