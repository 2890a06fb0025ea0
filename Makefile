# Three commands: `make run` classifies music on this machine, `make web` shows it in a browser, `make test` proves that
# it works.
# INPUT may hold several files, folders, URLs and Spotify IDs, separated by spaces.

VENV ?= .venv
INPUT ?= samples
SERVICE ?= genre-worker
N ?= 2
AUDIO ?= .cache
RUN ?= --help
BENCH ?=
SERVE ?=
COMPOSE ?= deploy/setup/compose.sh

# Through the environment, so that the shell does not take a URL's & and ; for its own.
export INPUT RUN

.DEFAULT_GOAL := help
.PHONY: help run web test recipes chaos kubernetes fuzz bench capacity lint lock audit sbom test-services up cli down logs scale train docs recording clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

run: $(VENV)/.run ## classify INPUT (default: the bundled samples)
	@$(VENV)/bin/tonestream classify $$INPUT

web: $(VENV)/.run ## the page and the HTTP API on this machine; says where to look
	@$(VENV)/bin/tonestream serve $(SERVE)

test: $(VENV)/.test test-services ## every test: unit, contract and integration, on real Kafka and Redis
	@# Hundreds of processes import the same modules: they keep the bytecode, also where the environment forbids it.
	PYTHONDONTWRITEBYTECODE= $(VENV)/bin/python -m pytest --numprocesses 3 $(if $(CI),--cov --cov-report=term)

recipes: $(VENV)/.test test-services ## set up what recipes/ needs (Node, Go, beets, MCP), and run each of them
	@deploy/setup/recipes.sh $(VENV)
	TONESTREAM_RECIPES=all $(VENV)/bin/python -m pytest tests/recipes

chaos: $(VENV)/.test test-services ## the long storm: everything fails, and each request has exactly one right result
	TONESTREAM_CHAOS=long $(VENV)/bin/python -m pytest tests/chaos -s

kubernetes: $(VENV)/.test ## the manifests on a real cluster (CONTEXT: one of kubectl's), which has images, KEDA and no Tonestream
	@test -n "$(CONTEXT)" || { echo "make kubernetes CONTEXT=kind-kind"; exit 2; }
	TONESTREAM_TEST_KUBERNETES="$(CONTEXT)" $(VENV)/bin/python -m pytest tests/kubernetes -s

fuzz: $(VENV)/.test ## messages and audio files made at random, tens of thousands of them
	TONESTREAM_FUZZ=long $(VENV)/bin/python -m pytest tests/unit/contracts/test_fuzz_messages.py tests/unit/ingestion/test_fuzz_entry.py \
		tests/unit/audio/test_fuzz_decoder.py tests/unit/audio/test_file_tags.py \
		--timeout 7200 --durations 0

bench: $(VENV)/.test test-services ## what a track costs, beside the limit, the tutorial and other tools (DATA: a folder of clips)
	$(VENV)/bin/python -m benchmarks.bench $(if $(DATA),--data "$(DATA)") $(BENCH)

capacity: $(VENV)/.test test-services ## measure what a track costs on music in DATA, and write docs/capacity.md
	@test -n "$(DATA)" || { echo "make capacity DATA=folder-with-music"; exit 2; }
	TONESTREAM_TEST_KAFKA=java $(VENV)/bin/python -m benchmarks.capacity measure "$(DATA)"

lint: $(VENV)/.test ## ruff, mypy, and who imports whom
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

lock: $(VENV)/.test ## resolve the dependencies again and record their versions and hashes
	$(VENV)/bin/pip install --quiet uv
	deploy/setup/lock.sh $(VENV)/bin/uv

audit: $(VENV)/.test ## known vulnerabilities of the installed packages
	$(VENV)/bin/python deploy/setup/audit.py $(VENV)

sbom: $(VENV)/.test ## a bill of materials for each image, and the licences of everything in it, in build/sbom
	$(VENV)/bin/python deploy/setup/sbom.py build/sbom

up: ## Kafka, Redis, the five services and the gateway in Docker: builds, starts, waits, and says where to look
	@deploy/setup/up.sh $(COMPOSE)

cli: ## the command line in a container, e.g. make cli RUN="results --follow"
	@deploy/setup/cli.sh $(COMPOSE)

down: ## stop them; data stays in the volumes
	@$(COMPOSE) down --remove-orphans

logs: ## follow the logs of all services, or of SERVICE=genre-worker
	@$(COMPOSE) logs --follow --tail 100 $(if $(filter-out file,$(origin SERVICE)),$(SERVICE))

scale: ## run N workers of SERVICE, e.g. make scale SERVICE=genre-worker N=3
	@$(COMPOSE) up --detach --no-recreate --no-deps --scale $(SERVICE)=$(N) $(SERVICE)

train: $(VENV)/.test ## train every model on DATA and write them to models/ (AUDIO: a folder with music, speech and sounds)
	@test -n "$(DATA)" || { echo "make train DATA=folder-with-gtzan_dev-moods-and-emotify_dev"; exit 2; }
	@for kind in music speech sounds; do \
		test -d $(AUDIO)/$$kind || { echo "missing: training/distillation/debian-audio.sh $$kind $(AUDIO)/$$kind"; exit 2; }; \
	done
	$(VENV)/bin/tonestream train genre --data $(DATA)/gtzan_dev --model musicnn-lstm --out models/musicnn-lstm \
		--teach $(DATA)/emotify_dev --teach $(AUDIO)/music
	@# Without Emotify: the mood network is measured on Emotify, with this model's tags.
	$(VENV)/bin/tonestream train genre --data $(DATA)/gtzan_dev --model mfcc-lstm --out models/mfcc-lstm \
		--teach $(AUDIO)/music --speech $(AUDIO)/speech --sounds $(AUDIO)/sounds
	$(VENV)/bin/tonestream train key --data $(DATA)/gtzan_dev
	$(VENV)/bin/tonestream train mood --csv $(DATA)/moods/moods_dev.csv --listeners $(DATA)/emotify_dev \
		--genres $(DATA)/gtzan_dev --out models/mood-ten

docs: $(VENV)/.test ## write what follows from the code into docs/, and build the site in build/site
	$(VENV)/bin/python -m services.docs
	$(VENV)/bin/python -m sphinx -E -W --keep-going -n -q docs build/site
	@echo "the site is in build/site/index.html"

recording: $(VENV)/.run ## record docs/images/terminal.svg, the picture of a terminal in the README, anew
	$(VENV)/bin/python -m services.docs.recording

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build *.egg-info

test-services:
	@deploy/setup/test-services.sh

$(VENV)/.run: pyproject.toml deploy/requirements/laptop.txt
	@deploy/setup/venv.sh $(VENV) laptop
	@touch $@

$(VENV)/.test: pyproject.toml deploy/requirements/test.txt
	@deploy/setup/venv.sh $(VENV) test
	@touch $@ $(VENV)/.run
