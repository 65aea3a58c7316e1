# Each target sets up a virtual environment of its own; Python (3.10 or newer) and make are all that is needed.
PYTHON ?= python3
VENVS ?= .venv
OLDER_TRANSFORMERS = 5.21.1 5.22.2
# That of the CUDA builds of torch, which pin it.
OLDER_TRITON = 3.7.1

# Where torch comes from: pip's own index unless set, say to PyTorch's index of CPU builds.
TORCH_INDEX ?=
TORCH := $(shell grep '^torch==' constraints.txt) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
PIP_INSTALL = bin/python -m pip install --quiet --disable-pip-version-check

SITE = build/site
HUB_KERNELS = build/tle-int8

.PHONY: demo docs test test-older-transformers test-older-triton lint format bench plots hub-kernels dist clean $(VENVS)/dist/ready

demo: $(VENVS)/demo/ready
	$(VENVS)/demo/bin/hf-tle-int8 demo

docs: $(VENVS)/docs/ready
	$(VENVS)/docs/bin/python -m sphinx --quiet --fail-on-warning --keep-going docs $(SITE)
	@echo "Open $(SITE)/index.html"

test: $(VENVS)/test/ready
	$(VENVS)/test/bin/python -m pytest -n auto --dist worksteal

lint: $(VENVS)/test/ready
	$(VENVS)/test/bin/ruff check .
	$(VENVS)/test/bin/ruff format --check .
	$(VENVS)/test/bin/mypy

format: $(VENVS)/test/ready
	$(VENVS)/test/bin/ruff check --fix .
	$(VENVS)/test/bin/ruff format .

test-older-triton: $(OLDER_TRITON:%=test-triton-%)

test-triton-%: $(VENVS)/triton-%/ready
	$(VENVS)/triton-$*/bin/python -m pytest -n auto --dist worksteal

test-older-transformers: $(OLDER_TRANSFORMERS:%=test-transformers-%)

test-transformers-%: $(VENVS)/transformers-%/ready
	$(VENVS)/transformers-$*/bin/python -m pytest -n auto --dist worksteal

# In the environment at hand: what is compared with is chosen by what is installed there (docs/benchmarks.md).
bench:
	$(PYTHON) tests/benchmarks/record.py

plots:
	$(PYTHON) tests/benchmarks/plots.py

# A folder that Hugging Face's kernels loads.
hub-kernels:
	rm -rf $(HUB_KERNELS)
	$(PYTHON) kernels/hub/lay_out.py $(HUB_KERNELS)

# An sdist, the wheel that it makes, and that wheel at work in an environment of its own.
dist: $(VENVS)/dist/ready
	rm -rf dist hf_tle_int8.egg-info
	$(VENVS)/dist/bin/python -m build
	$(VENVS)/dist/bin/twine check --strict dist/*
	$(VENVS)/dist/$(PIP_INSTALL) -c constraints.txt dist/*.whl
	$(VENVS)/dist/bin/python -I tests/installed.py

clean:
	rm -rf $(VENVS) build dist *.egg-info

# Otherwise make would take them for intermediate files, and delete them.
.PRECIOUS: $(VENVS)/transformers-%/ready $(VENVS)/triton-%/ready

# torch is installed alone and first, so that nothing else decides which build of it is used.
define new_environment
	$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed" if sys.version_info < (3, 10) else 0)'
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	cd $(@D) && $(PIP_INSTALL) $(TORCH)
endef

$(VENVS)/demo/ready: setup.cfg constraints.txt
	$(new_environment)
	$(@D)/$(PIP_INSTALL) -c constraints.txt -e '.[demo]'
	touch $@

$(VENVS)/docs/ready: setup.cfg constraints.txt
	$(new_environment)
	$(@D)/$(PIP_INSTALL) -c constraints.txt -e '.[docs]'
	touch $@

$(VENVS)/test/ready: setup.cfg constraints.txt
	$(new_environment)
	$(@D)/$(PIP_INSTALL) -c constraints.txt -e '.[test,demo]'
	touch $@

$(VENVS)/dist/ready:
	$(new_environment)
	$(@D)/$(PIP_INSTALL) -c constraints.txt build twine
	touch $@

$(VENVS)/transformers-%/ready: setup.cfg constraints.txt
	$(new_environment)
	grep -vE '^(transformers|tokenizers|huggingface_hub)==' constraints.txt > $(@D)/constraints.txt
	$(@D)/$(PIP_INSTALL) -c $(@D)/constraints.txt -e '.[test,demo]' transformers==$*
	touch $@

$(VENVS)/triton-%/ready: setup.cfg constraints.txt
	$(new_environment)
	$(@D)/$(PIP_INSTALL) -c constraints.txt -e '.[test,demo]' triton==$*
	touch $@
