# Every target does all the set-up it needs: a virtual environment in .venv with the pinned versions of constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal

# What the page that export makes needs of npm, 33 MB, is fetched once, so that no test asks the network.
RUNTIME := from bytepixels.export.page import runtime_files; runtime_files()

.PHONY: demo test test-slow test-all test-browser lint bench clean

demo: .venv/ready  ## draw at once, then train on handwritten digits (about four minutes on two cores, set-up included)
	$(BIN)/bytepixels sample emoji -n 16 --out demo/emoji.png
	$(BIN)/bytepixels train digits --preset digits --run demo/run
	$(BIN)/bytepixels sample demo/run -n 100 --gif --out demo/samples
	$(BIN)/bytepixels show digits --out demo/forward
	@echo
	@echo "Emoji of a bundled model:           demo/emoji.png   (bytepixels sample emoji --prompt 'red heart')"
	@echo "New digits, one column per class:   demo/samples/grid.png"
	@echo "How they came out of the noise:     demo/samples/denoising.gif"
	@echo "Along the way, raw beside average:  demo/run/samples/"
	@echo "The forward process:                demo/forward/"
	@echo "The trained model:                  demo/run/   (bytepixels sample demo/run --label 7 --seed 1000)"

test: .venv/test  ## the tests, a few minutes
	$(PYTEST)

test-slow: .venv/test  ## the tests that train for minutes
	$(PYTEST) -m slow --durations 15

test-all: .venv/test  ## both at once
	$(PYTEST) -m "not browser" --durations 15

test-browser: .venv/test  ## the page that export makes, in Chromium
	command -v chromium google-chrome > /dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; }
	$(BIN)/python -m pytest -m browser

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/bench  ## training and sampling steps, ours beside the peers'
	$(BIN)/python -m bench.steps

clean:
	rm -rf .venv demo build dist .pytest_cache .mypy_cache .ruff_cache src/*.egg-info

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) --editable .
	touch $@

.venv/test: .venv/ready
	$(INSTALL) --editable ".[test]"
	$(BIN)/python -c "$(RUNTIME)"
	touch $@

.venv/bench: .venv/test
	$(INSTALL) --no-deps denoising-diffusion-pytorch==2.3.4 einops==0.8.2  # --no-deps: it would pull torchvision
	touch $@
