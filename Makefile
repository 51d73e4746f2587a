# Helix. `make help` explains every target; `make demo` and `make test` are all a newcomer needs.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup setup-tests setup-cluster fetch images render demo demo-serve check test test-lineage test-fast test-built test-torch test-slow test-long test-cluster bench lock clean

BIN := .helix/venv/bin
# A skip that tests/skips.toml does not list fails; the slowest tests are named.
PYTEST := $(BIN)/python -m pytest --timeout=900 --strict-skips --durations=15 --durations-min=5
# Two processes, a file's tests in one of them (tests/conftest.py).
PARALLEL := -n 2 --dist loadgroup
FAST := not slow and not long and not torch and not cluster
# Every folder of models/ with a contract, and the packages in it: nothing here names one.
MODELS := $(patsubst models/%/model.toml,%,$(wildcard models/*/model.toml))
PACKAGES := helix_lineage helixserve model_to_metal $(notdir $(patsubst %/__init__.py,%,$(wildcard models/*/src/*/__init__.py)))
empty :=
define newline


endef
export MYPYPATH := $(subst $(empty) $(empty),:,$(abspath lineage/src platform/src $(wildcard models/*/src)))
export HELIX_STATE := $(CURDIR)/.helix
export PATH := $(CURDIR)/$(BIN):$(PATH)

help:  ## Explain every target
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup:  ## Install what is missing (apt, Python by hash, cosign and olareg built from source); safe to run twice
	@bash platform/setup/bootstrap.sh

setup-tests: setup  ## Install what only the tests need besides (a browser, qemu-user, diffoscope, faketime, disorderfs)
	@bash platform/setup/bootstrap.sh tests

setup-cluster: setup  ## Install what only a cluster needs besides (nftables, redis, gpg, libseccomp)
	@bash platform/setup/bootstrap.sh cluster

demo: setup  ## The main job, end to end: a commit becomes an image, a prediction, a trace and a replay
	@$(BIN)/helix demo

demo-serve: setup  ## The same, and leave the server running until Ctrl-C
	@$(BIN)/helix demo --serve

check: setup  ## Linters, types and import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(PACKAGES:%=-p %)
	$(BIN)/python platform/setup/layers.py

test: check  ## Every test, fast ones first; then those of the built image beside those that need torch
	@bash platform/setup/timed.sh test-lineage test-fast test-built

fetch: setup  ## Download what the locks name, and put it into the Nix store
	$(BIN)/helix fetch

images: fetch  ## Make every model's image; layouts and digests go to .helix/images-made, for comparing machines
	rm -rf .helix/images-made
	for model in $(MODELS); do \
	  made=.helix/images-made/$$model; mkdir -p "$$made"; \
	  said=$$($(BIN)/helix build "$$model" --json); \
	  cp -r --no-preserve=mode,timestamps "$$(jq -r .layout <<< "$$said")" "$$made/layout"; \
	  jq -r .image <<< "$$said" | tee "$$made/digest"; \
	done

test-lineage: setup-tests fetch  ## Tests of the Reproducibility Engine; every branch of what decides what is believed (100 %)
	$(PYTEST) $(PARALLEL) --cov -m "$(FAST)" tests/helix_lineage

test-fast: setup-tests fetch  ## All other tests that need no image
	$(PYTEST) $(PARALLEL) -m "$(FAST)" --ignore=tests/helix_lineage tests

test-built: setup-tests fetch  ## test-torch and test-slow side by side
	@$(MAKE) --no-print-directory -j2 test-torch test-slow

test-torch: fetch  ## Tests beside torch and the upstream package, in the Nix build environment
	$(foreach model,$(MODELS),$(BIN)/helix env $(model) build -- python -m pytest -p no:cacheprovider --strict-skips -m torch tests/models/$(model)$(newline))

test-slow: setup-tests fetch  ## Tests on the built, signed and running image
	$(PYTEST) -m "slow and not long and not torch" tests

test-long: setup-tests fetch  ## Tests that take longer than `make test` may
	$(PYTEST) -m "long and not torch" tests

test-cluster: setup-cluster fetch  ## Tests on a real Kubernetes that they start (root; the first time its programs are built)
	$(BIN)/helix cluster build
	$(PYTEST) -m cluster tests

bench: setup fetch  ## Measure everything against its peers; writes benchmarks/results and the README's table
	$(BIN)/helix keys init
	if git diff --quiet HEAD; then for model in $(MODELS); do $(BIN)/helix run release "$$model"; done; \
	else echo "uncommitted changes: the last release is measured"; fi
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks all

lock: setup  ## Resolve every lock again
	$(BIN)/helix lock

render: setup  ## Write the release workflow as YAML for Argo Workflows, and its derivations for Nix
	$(BIN)/python -m model_to_metal.workflows.release gitops/argocd/workflows
	$(BIN)/python -m model_to_metal.pipeline.derivations platform/nix/stages.json

clean:  ## Remove the state of this checkout (store, log, keys, images, downloads)
	chmod -R u+w .helix 2> /dev/null || true  # the Nix store is read-only
	rm -rf .helix
