# The commands of the house; `make` alone lists them.
# Everything lands in .venv. Root is asked for (sudo) only by what starts containers.

PYTHON ?= python3
BIN    := .venv/bin
SUDO   := $(if $(filter 0,$(shell id -u)),,sudo)
ARGS   ?=
# Two at once: most tests wait for the kernel half of their time. Those of one file share addresses, so they stay together.
AT_ONCE := --numprocesses 2 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo test slow quick bench docs clean

help: ## list these commands
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1|\2/p' Makefile | column -t -s '|'

demo: .venv/runtime ## run configs/hello.toml: a container's own output, then everything taken down
	$(SUDO) $(BIN)/pycore apply configs/hello.toml
	@$(SUDO) $(BIN)/pycore wait hello/greeter > /dev/null
	$(SUDO) $(BIN)/pycore logs hello/greeter
	$(SUDO) $(BIN)/pycore down configs/hello.toml

test: .venv/dev ## the test suite, with lint, types and import contracts; ARGS="-k ports" narrows it
	$(BIN)/pytest -m "not slow" $(AT_ONCE) $(ARGS)

slow: .venv/dev ## what takes minutes beside it: a failure of every call, a kill -9 at every moment
	$(BIN)/pytest -m slow $(AT_ONCE) $(ARGS)

quick: .venv/dev ## unit tests, lint and types: what to run between two edits
	$(BIN)/pytest -m "not slow and not root" $(AT_ONCE) $(ARGS)

bench: .venv/dev ## pycore beside the other runtimes of this host, one table; ARGS="--list" shows the parts
	$(SUDO) $(BIN)/python tests/bench/run.py $(ARGS)

docs: .venv/dev ## write docs/spec.md anew from the declared fields
	$(BIN)/python -m pycore.testing.reference docs/spec.md

clean: ## remove the virtual environment, caches and build products
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find core plugins tests -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/python: ; @$(call say-what-is-missing) && $(PYTHON) -m venv --clear .venv && touch $@

.venv/runtime: pyproject.toml | .venv/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

# Dependency groups (PEP 735) need pip 25.1; Debian 12 has 23.0.
.venv/dev: pyproject.toml | .venv/python
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@ .venv/runtime

define say-what-is-missing
command -v $(PYTHON) > /dev/null \
	|| { echo "there is no $(PYTHON): apt-get install python3 python3-venv, or make PYTHON=/path/to/python" >&2; exit 1; }; \
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	|| { echo "$(PYTHON) is older than 3.11: make PYTHON=/path/to/a/newer/python" >&2; exit 1; }; \
$(PYTHON) -c 'import ensurepip' 2> /dev/null \
	|| { echo "$(PYTHON) cannot make virtual environments: apt-get install python3-venv" >&2; exit 1; }
endef
