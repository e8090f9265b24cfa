# Everything goes through the virtual environment in .venv, installed from the locks. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
UV := $(VENV)/bin/uv
STAMP := $(VENV)/.installed
PROTOS = $(shell find proto/pagemesh proto/third_party/buf proto/third_party/xdsapi -name '*.proto' | sort | sed -E 's,^proto/(third_party/)?,,')
SERVICE_PROTOS = $(filter %_service.proto %/external_auth.proto,$(PROTOS))
COMPILE = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url

.PHONY: help setup demo test long corpus check format gen lock bench tools clean

help: ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(STAMP) ## Make .venv and install what the lock says

$(STAMP): locks/dev.txt pyproject.toml
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@test -x $(UV) || $(PY) -m pip install --quiet --disable-pip-version-check "$$(sed -nE 's/^(uv==[0-9.]+).*/\1/p' locks/dev.txt)"
	$(UV) pip sync --quiet --require-hashes --python $(PY) locks/dev.txt
	$(UV) pip install --quiet --python $(PY) --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP) ## Start the real stack, summarise a PDF through it, show what it cost, stop it
	@$(VENV)/bin/pagemesh demo

test: $(STAMP) ## Run the tests, two files at a time, but for the long ones
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not long"

long: $(STAMP) ## Run the long tests: kills again and again, outages, whole lives of the stack, real files
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m long

corpus: $(STAMP) ## Send every real and hostile file through the whole stack; PAGEMESH_CORPUS names their folder
	PAGEMESH_WHOLE_CORPUS=1 $(PY) -m pytest tests/corpus

check: $(STAMP) ## Format, lint, types, contracts, generated code
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/buf lint
	@if git rev-parse --quiet --verify refs/remotes/origin/main >/dev/null; then base=refs/remotes/origin/main; else base=main; fi; \
	 echo "buf breaking against $$base"; $(VENV)/bin/buf breaking --against ".git#ref=$$(git rev-parse $$base)"
	@$(MAKE) --no-print-directory gen GEN=$(VENV)/gen-check APIDOC=$(VENV)/gen-check-api && diff -r -x __pycache__ gen $(VENV)/gen-check \
	 && diff -r docs/api $(VENV)/gen-check-api \
	 || { echo "gen/ or docs/api/ is not what proto/ says: run make gen"; exit 1; }

format: $(STAMP) ## Format the code
	$(VENV)/bin/ruff format . && $(VENV)/bin/ruff check --fix .

GEN ?= gen
PROTOC = $(PY) -m grpc_tools.protoc -I proto -I proto/third_party
APIDOC ?= docs/api
gen: $(STAMP) ## Generate gen/ and docs/api/ from proto/
	@rm -rf $(GEN) && mkdir -p $(GEN)
	@$(PROTOC) --plugin=protoc-gen-mypy=$(VENV)/bin/protoc-gen-mypy --python_out=$(GEN) --mypy_out=quiet:$(GEN) $(PROTOS)
	@$(PROTOC) --plugin=protoc-gen-mypy_grpc=$(VENV)/bin/protoc-gen-mypy_grpc --grpc_python_out=$(GEN) \
	 --mypy_grpc_out=quiet:$(GEN) $(SERVICE_PROTOS)
	@$(PROTOC) --include_imports --include_source_info --descriptor_set_out=$(VENV)/api.binpb $(SERVICE_PROTOS)
	@$(PY) tools/apidoc.py $(VENV)/api.binpb $(APIDOC)

lock: ## Resolve the locks anew
	$(VENV)/bin/$(COMPILE) pyproject.toml --extra stack --group dev -o locks/dev.txt
	@for service in extractor summarizer ledger; do \
	 $(VENV)/bin/$(COMPILE) --group $$service -c locks/dev.txt -o locks/$$service.txt || exit 1; done
	$(VENV)/bin/$(COMPILE) pyproject.toml --extra stack -c locks/dev.txt -o locks/stack.txt

bench: $(STAMP) ## Run every benchmark; each prints one JSON line
	@for bench in bench/bench_*.py; do $(PY) -m bench.$$(basename $$bench .py) || exit 1; done

tools: ## Install grpcurl where Go is there
	@if command -v go >/dev/null; then GOBIN=$(CURDIR)/.tools go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3; \
	 else echo "no Go here: the tests that use grpcurl will be skipped"; fi

clean: ## Remove what was installed and built
	rm -rf $(VENV) .tools dist .pytest_cache .mypy_cache .ruff_cache
