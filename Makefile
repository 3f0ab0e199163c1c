.DEFAULT_GOAL := help
.PHONY: help
help: ## List the verbs
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1\t/' | expand -t 14

.PHONY: tools rig-up rig-down
RIG ?= regent
TOPOLOGY ?= e2e/topologies/demo.yaml
tools: ## Build Kubernetes, etcd and helm from their pinned sources
	@cargo run -q -p regent-rig -- tools
rig-up: ## Bring several real sites up (RIG=name TOPOLOGY=file)
	@cargo run -q -p regent-rig -- --rig $(RIG) up $(TOPOLOGY)
rig-down: ## Take them down
	@cargo run -q -p regent-rig -- --rig $(RIG) down

.PHONY: generate
generate: ## Write what is made from code: the chart's CRDs
	@cargo run -q -p regent-api --bin regent-crds -- charts/regent/crds
