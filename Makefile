# Everything a developer or CI runs. `make` alone lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.ready: requirements/dev.lock pyproject.toml hatch_build.py $(shell find proto -name '*.proto')
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

.PHONY: venv
venv: $(VENV)/.ready ## make .venv with the locked dependencies and the generated stubs

.PHONY: install
install: ## the Debian packages that tests and VM need (as root; otherwise it says which)
	test -x /usr/bin/python3 || { apt-get update && apt-get install --yes --no-install-recommends python3; }
	/usr/bin/python3 tests/rigs/install.py

.PHONY: lint
lint: install venv ## ruff, mypy --strict, and the import contracts of the rooms
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: test
test: install unit contract ## everything that this machine can show: what CI runs

.PHONY: unit
unit: venv ## pure code, no root (30 s)
	$(BIN)/pytest tests/unit

.PHONY: contract
contract: install venv ## the contract and csi-sanity on every kind of storage: files here, LVM in VMs, beside each other
	rm -rf test-results
	$(MAKE) --jobs 2 contract-host contract-lvm || { $(BIN)/python -m tests.rigs.failures test-results; exit 1; }

.PHONY: contract-host
contract-host: install venv ## the contract, the CSI services and csi-sanity on files and loop devices of this machine (root)
	$(BIN)/pytest --junit-xml=test-results/host/junit.xml tests/host tests/contract tests/csi
	$(BIN)/python -m tests.rigs.sanity file-mount file-block

.PHONY: contract-lvm
contract-lvm: install venv ## the same on real LVM, in VMs; SHARDS="thick lvm" for some of it
	$(BIN)/python -m tests.rigs.lvm_tier $(SHARDS)

.PHONY: sanity
sanity: install venv ## csi-sanity alone: files here, LVM in VMs (root); CASES="file-mount" for some of it
	$(BIN)/python -m tests.rigs.sanity $(CASES)

.PHONY: gotools
gotools: install venv ## build the Go programs that the tests need: minutes, once; afterwards it says where they are
	$(BIN)/python -m tests.rigs.gotools

.PHONY: cluster
cluster: gotools ## the real control plane and CSI sidecars on loopback (root; first builds them: 10 min on two cores)
	$(BIN)/pytest tests/cluster

.PHONY: install-full
install-full: venv
	/usr/bin/python3 tests/rigs/install.py full

.PHONY: full
full: install-full ## real nodes: VMs with kubelet, containerd and our image (root; first builds them); ARGS="-k rig"
	$(BIN)/pytest tests/full $(ARGS)

.PHONY: cluster-up
cluster-up: install-full ## a cluster of such nodes, left running for you; ARGS="--nodes 3", ARGS=--help (root)
	$(BIN)/python -m tests.rigs.full up $(ARGS)

.PHONY: cluster-status
cluster-status: venv ## its nodes and Pods, and where their logs are
	$(BIN)/python -m tests.rigs.full status $(ARGS)

.PHONY: cluster-down
cluster-down: venv ## end it, also after a start that went wrong
	$(BIN)/python -m tests.rigs.full down $(ARGS)

.PHONY: image
image: venv ## our container image, without a registry: dist/ullage-image.tar (root; 3 min); ARGS="--help"
	/usr/bin/python3 tests/rigs/install.py image
	$(BIN)/python deploy/image/build.py $(ARGS)

.PHONY: image-get
image-get: install venv
	/usr/bin/python3 tests/rigs/install.py image
	$(BIN)/python -m tests.rigs.images ullage

.PHONY: image-test
image-test: gotools image-get ## the image, from its own files: nothing missing, nothing written, all components serve (root)
	$(BIN)/pytest tests/image

.PHONY: demo
demo: install venv ## CSI calls, one by one: two volumes, a snapshot, a restore and a clone; leaves nothing behind (root)
	$(BIN)/python -m tests.rigs.demo

.PHONY: fresh
fresh: ## make demo on a Debian 12 with nothing installed, in a root of its own (root; mmdebstrap); ARGS="demo test" for more
	/usr/bin/python3 tests/rigs/fresh.py $(ARGS)

.PHONY: bench-agent
bench-agent: install venv ## what the agent adds to bare LVM: ratios, LVM processes, memory (40 min in the VM)
	$(BIN)/python -m tests.rigs.vm --smp 2 --disks 2 --disk-bytes 8GiB --timeout 6000 -- \
		$(BIN)/python -m bench.agent $(ARGS) /dev/vda /dev/vdb

.PHONY: bench-csi
bench-csi: install venv ## what the CSI driver adds to mkfs and mount: ratios in the VM, rates and memory here (20 min)
	$(BIN)/python -m bench.csi --host $(ARGS)
	$(BIN)/python -m tests.rigs.vm --smp 2 --disks 2 --disk-bytes 8GiB --timeout 6000 -- \
		$(BIN)/python -m bench.csi $(ARGS) /dev/vda /dev/vdb

.PHONY: bench-changed
bench-changed: install venv ## being told what has changed in 10 GiB beside reading them (10 min in the VM, 13 GB of disk)
	$(BIN)/python -m tests.rigs.vm --smp 2 --disks 2 --disk-bytes 12GiB --timeout 6000 -- \
		$(BIN)/python -m bench.changed_blocks $(ARGS) /dev/vda /dev/vdb

.PHONY: crds
crds: venv ## write the chart's definitions anew from the classes in ullage/
	$(BIN)/python -m ullage.kube.crds deploy/chart/ullage/crds

.PHONY: docs
docs: venv ## write docs/configuration.md anew from the schemas of the chart and of DeviceClass
	$(BIN)/python -m tests.rigs.docs.configuration

.PHONY: manifests
manifests: install venv ## write deploy/manifests anew from the chart
	$(BIN)/python -m tests.rigs.chart deploy/manifests

.PHONY: bench-cluster
bench-cluster: install venv ## what a cluster adds to a carve: delays, writes, a thousand nodes (40 min, root); ARGS="scale"
	$(BIN)/python -m bench.cluster $(ARGS)

.PHONY: bench-extender
bench-extender: install venv ## what a scheduling decision costs, and kube-scheduler's Pods per second (40 min); ARGS="wire" for a part
	$(BIN)/python -m bench.extender $(ARGS)

.PHONY: power
power: gotools ## the power of a node is cut under load, three times (root; 10 min); ULLAGE_POWER_CUTS=30, ULLAGE_POWER_SEED=…
	$(BIN)/pytest -s tests/power

.PHONY: bench-image
bench-image: gotools image-get ## how big our image is, and how soon each component serves from it (root)
	$(BIN)/python -m bench.image $(ARGS)

.PHONY: bench-databases
bench-databases: install-full ## PostgreSQL and Redis in a Pod beside the same on bare volumes (60 min, root); ARGS="--rounds 5"
	$(BIN)/python -m bench.databases $(ARGS)

.PHONY: vm
vm: install venv ## a shell in a throw-away VM with blank disks; ARGS="--disks 3 -- COMMAND" for a command
	$(BIN)/python -m tests.rigs.vm $(ARGS)

.PHONY: clean
clean: ## remove what was built in the tree
	rm -rf $(VENV) ullage/pb build dist test-results .mypy_cache .ruff_cache .pytest_cache .hypothesis
