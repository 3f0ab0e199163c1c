# The verbs; what they do lives in Rust.
.DEFAULT_GOAL := help
.PHONY: help demo test soak lint generate build tools bench rig-up rig-down

RIG ?= regent
SEEDS ?= 0..2500
TOPOLOGY ?= e2e/topologies/demo.yaml
BIN := target/x86_64-unknown-linux-gnu/debug
RIGBIN := cargo run -q -p regent-rig --

help: ## List the verbs
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1\t/' | expand -t 14

demo: build tools ## Cut off a real site and watch a partner take over (SCENARIO=cut|blip|crash|planned|failback TIMING=default|tightest)
	@$(BIN)/regent-demo

test: lint build tools ## Run all tests, on real sites too
	@cargo test --workspace --exclude regent-sim --quiet
	@cargo test -p regent-sim --features hashed --quiet

soak: ## Run many simulated schedules of faults (SEEDS=0..2500, of each kind)
	@cargo run -q --profile soak -p regent-sim --features hashed -- --seeds $(SEEDS) --jobs 2

lint: ## Formatting, warnings, and generated files that differ from their source
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets --quiet -- -D warnings
	@$(MAKE) -s generate
	@git diff --exit-code --stat -- charts docs/kinds.md || { echo "generated files differ from their source: commit what 'make generate' wrote"; exit 1; }

generate: ## Write what is made from code: the chart's CRDs, the table of kinds
	@cargo run -q -p regent-api --bin regent-crds -- charts/regent/crds
	@cargo run -q -p regent-kinds --bin regent-kinds-page > docs/kinds.md

build: ## Build every program
	@echo "building Regent and its test bed"
	@cargo build --workspace --quiet

tools: ## Build Kubernetes, etcd and helm from their pinned sources
	@$(RIGBIN) tools

rig-up: ## Bring several real sites up (RIG=name TOPOLOGY=file)
	@$(RIGBIN) --rig $(RIG) up $(TOPOLOGY)

rig-down: ## Take them down (RIG=name)
	@$(RIGBIN) --rig $(RIG) down

bench: build tools ## Measure a full node, takeovers, and idle groups, on real sites (PODS=50 RUNS=5 TIMING=default|tightest)
	@$(BIN)/regent-bench node --cut
	@$(BIN)/regent-bench takeover
	@$(BIN)/regent-bench groups
