# Everything is built into .venv, by uv, which lies in .tools: that passes Debian's
# externally-managed refusal and needs neither root nor python3-venv.

# The Python that .venv is made of: any from 3.11 on.
PYTHON ?= python3
# How many processes run the tests.
JOBS ?= 2
# How long the fuzzer runs.
SECONDS ?= 600
# How long `make chaos` and `make soak` take.
FOR ?= 10m
# More for pytest: make test ARGS="-k ring -x"
ARGS ?=

UV := env -u VIRTUAL_ENV UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=.venv .tools/bin/uv
# One stamp for each Python: another Python makes .venv anew.
STAMP := .venv/.made-by$(subst /,-,-$(PYTHON))
NATIVE := src/perfkeep/records/_walk.c

.PHONY: help setup system cpython test fuzz fuzz-wire fuzz-files chaos soak demo bench lock clean

help:
	@echo 'make setup   .venv with perfkeep in it; quick when nothing changed'
	@echo 'make test    all tests and checks             (ARGS="-k ring -x" for pytest)'
	@echo 'make fuzz    random calls under perfkeep exec, ten minutes (SECONDS=60 for one)'
	@echo 'make fuzz-wire   clients that say anything to a broker, ten minutes (root)'
	@echo 'make fuzz-files  files that nobody made, read by all that reads files, ten minutes'
	@echo 'make chaos   kill and break things, and print what was lost     (FOR=1h, root)'
	@echo 'make soak    churn, and what memory and fds of the daemons do meanwhile   (FOR=1h)'
	@echo 'make demo    the main job, on the real events of this machine'
	@echo 'make bench   each figure beside its peer'
	@echo 'make system  perf, groff, bwrap, a C compiler, headers, Chromium, go, by apt-get, if missing (root)'
	@echo 'make cpython a CPython with frame pointers, for the test that needs one (Debian)'
	@echo 'make lock    write uv.lock anew, with the newest versions'
	@echo 'make clean   away with all that these made'
	@echo
	@echo 'PYTHON=/usr/bin/python3 names another Python, JOBS=4 more processes for the tests.'

# man looks beside the bin of PATH; an editable install brings no pages there (setuptools 80).
setup: $(STAMP)
	@mkdir -p .venv/share/man/man1 .venv/share/man/man2 .venv/share/man/man5; \
	for page in src/perfkeep/man/*.[125]; do \
	  ln -sf '$(CURDIR)'/"$$page" .venv/share/man/man"$${page##*.}"; \
	done

$(STAMP): pyproject.toml uv.lock $(wildcard $(NATIVE)) | .tools/bin/uv
	@$(UV) sync --quiet --frozen --all-extras --compile-bytecode --python '$(PYTHON)' \
	  --reinstall-package perfkeep
	@touch '$@'
	@ls src/perfkeep/records/_walk.*.so >/dev/null 2>&1 && walk='native record walk' \
	  || walk='pure record walk (no C compiler, or no Python.h)'; \
	echo "setup: .venv is ready: $$(.venv/bin/python -V), $$walk"

# pip's own settings (mirrors, further indexes) serve to fetch uv; uv does not read them.
.tools/bin/uv:
	@'$(PYTHON)' -m pip install -qq --disable-pip-version-check --root-user-action=ignore \
	  --target .tools --upgrade 'uv>=0.9,<1'

# Nothing is asked of the network when nothing is missing.
system:
	@missing=; \
	perf --version >/dev/null 2>&1 || missing="$$missing linux-perf"; \
	groff --version >/dev/null 2>&1 || missing="$$missing groff-base"; \
	command -v chromium-headless-shell chromium chromium-browser google-chrome >/dev/null \
	  || missing="$$missing chromium-headless-shell"; \
	bwrap --version >/dev/null 2>&1 || missing="$$missing bubblewrap"; \
	go tool -n pprof >/dev/null 2>&1 || missing="$$missing golang-go"; \
	echo '#include <linux/perf_event.h>' | cc -E - >/dev/null 2>&1 \
	  || missing="$$missing gcc libc6-dev"; \
	header=$$('$(PYTHON)' -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h; \
	test -e "$$header" || missing="$$missing python3-dev"; \
	test -z "$$missing" && exit; \
	echo "system: missing:$$missing"; \
	test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
	  || { echo "system: only root on a Debian can install them; the tests that need them skip"; \
	       exit 1; }; \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	  apt-get install -y -qq --no-install-recommends $$missing

# What is there is left as it is.
cpython: .tools/cpython/python

.tools/cpython/python:
	@sh tests/cpython.sh .tools/cpython

test: setup
	@.venv/bin/python -m pytest -n $(JOBS) $(ARGS)

fuzz: setup
	@PERFKEEP_FUZZ_SECONDS=$(SECONDS) .venv/bin/python -m pytest -q -s -o faulthandler_timeout=0 \
	  tests/programs/test_fuzz.py $(ARGS)

# Beside what .venv has already: the next setup leaves it there.
fuzz-wire: setup
	@$(UV) sync --quiet --frozen --all-extras --inexact --group fuzz --python '$(PYTHON)'
	@.venv/bin/python -m chaos.hostile -max_total_time=$(SECONDS) $(ARGS)

fuzz-files: setup
	@$(UV) sync --quiet --frozen --all-extras --inexact --group fuzz --python '$(PYTHON)'
	@.venv/bin/python -m chaos.files -max_total_time=$(SECONDS) $(ARGS)

chaos: setup
	@.venv/bin/python -m chaos --for '$(FOR)' $(ARGS)

soak: setup
	@.venv/bin/python -m chaos soak --for '$(FOR)'

demo: setup
	@.venv/bin/perfkeep demo

bench: setup
	@.venv/bin/python -m bench $(ARGS)

lock: | .tools/bin/uv
	UV_NO_CONFIG=1 $(UV) lock --upgrade --python '$(PYTHON)' --default-index https://pypi.org/simple

clean:
	rm -rf .venv .tools build dist src/*.egg-info src/perfkeep/records/_walk.*.so \
	  .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests bench chaos -name __pycache__ -type d -prune -exec rm -rf {} +
