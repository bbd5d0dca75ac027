# make demo | search-demo | test | lint | site | bench | torture | clean. Each target first brings .venv up to date.
# the first of these that runs and is one of the versions that are tested; another: make PYTHON=...
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do \
	$$name -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$name && break; done)
BIN := .venv/bin
RUN_STAMP := .venv/.requirements
DEV_STAMP := .venv/.requirements-dev
SERVE_STAMP := .venv/.requirements-serve

.SILENT:
.PHONY: demo search-demo test lint site bench torture clean

demo: $(RUN_STAMP)  ## raw clips to ranked results, with a report
	$(BIN)/python cli.py demo

search-demo: $(SERVE_STAMP)  ## the demo's clips on a search page, and those of folders: make search-demo VIDEOS=~/videos
	test -f data/work/demo/backbone/_state/manifest.json || $(BIN)/python cli.py run demo --until backbone
	$(BIN)/python cli.py index --in data/work/demo/synthesize --checkpoint data/work/demo/backbone --out data/work/search/demo
	for folder in $(VIDEOS); do $(BIN)/python cli.py index --in $$folder --checkpoint data/work/demo/backbone --out data/work/search/$$(basename $$folder) --max-failures 0.5; done
	$(BIN)/python cli.py serve data/work/search/*

test: $(DEV_STAMP)  ## the whole suite on two processes
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

site: $(DEV_STAMP)  ## docs/ and a reference made from the code, as a site in data/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	echo "data/site/index.html"

bench: $(DEV_STAMP)  ## every benchmark, one table each
	set -e; for file in benchmarks/*/[a-z]*.py; do echo "== $$file"; $(BIN)/python -m $$(echo $${file%.py} | tr / .); done

torture: $(DEV_STAMP)  ## kill -9 and resume, with the full counts of the reliability rules
	TVRKIT_TORTURE=full $(BIN)/python -m pytest -m slow

clean:  ## what make and the tools made; data/ stays
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are written last: an installation that was cut off is taken up again.
$(RUN_STAMP): requirements.txt requirements-clip.txt
	test -n "$(PYTHON)" && command -v $(PYTHON) >/dev/null || { echo "no Python 3.11, 3.12 or 3.13 here. Install one, or name it: make PYTHON=..." >&2; exit 2; }
	test -x $(BIN)/python || { echo "making .venv"; $(PYTHON) -m venv .venv; }
	echo "installing requirements.txt into .venv"
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check -r requirements.txt
	@# of openai-clip only the table of the tokenizer is read; what it asks for (torchvision) must not come along
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-deps -r requirements-clip.txt
	touch $@

$(SERVE_STAMP): requirements-serve.txt $(RUN_STAMP)
	echo "installing requirements-serve.txt into .venv"
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check -r requirements-serve.txt
	touch $@

$(DEV_STAMP): requirements-dev.txt $(SERVE_STAMP)
	echo "installing requirements-dev.txt into .venv"
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@
