# On a fresh machine, `make demo` and `make test` do everything.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# One more than the two cores of CI: there is always a worker that waits for an API server.
WORKERS ?= 3

.DEFAULT_GOAL := help
.PHONY: help demo test prepare lint tests end-to-end unit cluster cluster-down bench-controller bench-gpu generate lock clean

help: ## show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 22

demo: ## fine-tune, evaluate and serve a model on a real Kubernetes (MODEL=hf://org/name uses a model from a Hub)
	@$(PYTHON) e2e/environment.py e2e
	@$(RUN) -m e2e.demo $(if $(MODEL),--model $(MODEL))

test: ## lint, types, import contracts, and every test
	@$(PYTHON) e2e/environment.py dev
	@$(MAKE) --no-print-directory --jobs=2 prepare lint
	@$(MAKE) --no-print-directory tests
	@$(MAKE) --no-print-directory end-to-end

prepare: $(VENV)/.dev ## build everything slow: the programs of the cluster, the images, the cluster
	@$(RUN) -m e2e.prepare

end-to-end: $(VENV)/.dev ## the tests on the real cluster only
	@$(RUN) -m pytest --durations=20 e2e

tests: $(VENV)/.dev ## the other tests only
	@$(RUN) -m pytest --numprocesses=$(WORKERS) --durations=60 tests

lint: $(VENV)/.dev ## ruff, mypy, import-linter
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check --quiet .
	@$(VENV)/bin/mypy
	@PYTHONPATH=operator/src:trainer-image/src $(VENV)/bin/lint-imports --no-logo

unit: $(VENV)/.dev ## the unit tests only
	@$(RUN) -m pytest --numprocesses=$(WORKERS) tests/unit

cluster: $(VENV)/.e2e ## start the local cluster
	@$(RUN) -m e2e.cluster up

cluster-down: $(VENV)/.e2e ## remove the local cluster; downloads and builds stay in ~/.cache/finetune-operator
	@$(RUN) -m e2e.cluster down

bench-controller: $(VENV)/.dev ## benchmark the operator: CPU and requests per job, latency, memory
	@$(RUN) -m benchmarks.controller

bench-gpu: $(VENV)/.dev ## check a GPU: losses compared with a CPU, resume, tokens per second, memory
	@$(RUN) -m benchmarks.gpu

generate: $(VENV)/.dev ## regenerate the CRDs, the reference pages and the synchronous Python client from the code
	@$(RUN) -m finetune_api.crd crds charts/finetune-operator/files/crds
	@$(RUN) -m finetune_api.reference docs/reference
	@$(RUN) -m finetune_operator.reference docs/reference
	@$(RUN) -m kubectl_finetune.reference docs/reference
	@$(RUN) operator/make_sync_client.py
	@$(RUN) -m finetune_client.reference docs/reference
	@$(RUN) gitops/argocd/config_map.py

lock: $(VENV)/.e2e ## update the lock files from pyproject.toml
	@$(RUN) e2e/environment.py lock

$(VENV)/.%:
	@$(PYTHON) e2e/environment.py $*

clean: ## remove the installed packages; the caches stay
	@rm -rf $(VENV)
