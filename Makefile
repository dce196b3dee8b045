# Everything a person or a workflow does here. It needs Python 3.11 or newer and make; the rest goes into .venv.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
# one thread per process: the networks are small, and two processes run side by side
export OMP_NUM_THREADS ?= 1

.PHONY: reproduce test test-all lab export bench docs clean
reproduce: .venv/runtime        ## run the default study (ARGS='--quick' for a look)
	$(BIN)/sparse-lth reproduce $(ARGS)

test: .venv/dev                 ## run every notebook and tests/, but what takes long; ends with 'N passed, N failed'
	@$(BIN)/python tools/test.py $(ARGS)

test-all: .venv/dev             ## and what takes long: thirty kills, retraining, a browser, benchmarks
	@$(BIN)/python tools/test.py --all $(ARGS)

lab: .venv/dev                  ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab nbs $(ARGS)

export: .venv/dev               ## execute the notebooks (flagged cells keep their outputs), clean, export, make README.md
	$(BIN)/python tools/execute.py $(ARGS)
	$(BIN)/nbdev_clean
	$(BIN)/nbdev_export
	$(BIN)/python tools/readme.py

bench: .venv/runtime            ## run the benchmarks; ratios go to results/benchmarks/
	@for f in benchmarks/*.py; do $(BIN)/python $$f $(ARGS) || exit 1; done

docs: .venv/dev                 ## build the site into _docs (needs Quarto)
	@command -v quarto >/dev/null || { echo "make docs: Quarto is missing; install it from https://quarto.org, then run make docs again."; exit 1; }
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/nbdev_docs
	$(BIN)/python tools/readme.py    # nbdev writes a README.md of its own, and pictures beside it
	rm -rf index_files

clean:                          ## remove what can be made again, but no runs
	rm -rf .venv _docs _proc build dist *.egg-info

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is older than 3.11; say where a newer one is: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "make: $(PYTHON) can't make a virtual environment; on Debian and Ubuntu: apt install python3-venv"; exit 1; }

.venv/runtime: settings.ini setup.py constraints.txt | .venv/bin/python
	@echo 'make: installing the packages into .venv, which takes some minutes'
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

.venv/dev: settings.ini setup.py constraints.txt | .venv/bin/python
	@echo 'make: installing the packages of developers into .venv, which takes some minutes'
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch .venv/runtime $@
