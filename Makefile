# bpftoken. Every target installs what it needs first; nothing is done twice.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
.DELETE_ON_ERROR:
.PHONY: help setup build check gate fix test unit kernel e2e vm test-vm test-kill load test-containers chromium test-page prebuilds demo bench differential differential-vm mutate-model mutate-guard guard-stories deb test-deb debs corpus selftests test-selftests test-selftests-vm oracle fuzz objects clean

# Stamps: what npm, the C compiler and tsc write last. Paths are relative: a clone may lie anywhere.
MODULES := node_modules/.package-lock.json
ADDON := build/Release/bpftoken.node
DIST := dist/cli/main.js
PREBUILDS := prebuilds/.made

NATIVE_SOURCES := native/build.sh $(wildcard native/*.[ch] native/*/*.[ch])
SOURCES := $(shell find src -name '*.ts') tsconfig.json tsconfig.build.json package.json package-lock.json \
	scripts/finish-dist.cjs scripts/bundle-packages.cjs scripts/bundle-modules.cjs scripts/gen-cli-docs.ts
TSX := node --import tsx

# What plans say, tried object by object; and what is compared with libbpf beside it.
TRIED_PLANS := $(addprefix test/kernel/objects/,tried-plans.test.ts minimal-rights.test.ts)
AGREEMENT := $(addprefix test/kernel/objects/,libbpf-agreement.test.ts load-agreement.test.ts core-agreement.test.ts) \
	$(TRIED_PLANS)

help: ## this list
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 24

build: $(ADDON) $(DIST) ## addon, launcher, JavaScript, manual pages and completions

setup: $(MODULES) ## compiler and npm packages

check: gate unit ## fast gate: format, lint, types, layering, generated documents, unit tests

gate: build ## `make check` without the unit tests
	npx biome ci --error-on-warnings
	npx tsc -p tsconfig.json
	$(TSX) scripts/gen-policy-docs.ts --check
	$(TSX) test/corpus/gen-policy-library.ts --check
	$(TSX) scripts/gen-api-docs.ts --check
	$(TSX) scripts/gen-guard-layout.ts --check
	scripts/check-package.sh

fix: $(MODULES) ## format, fix what can fix, regenerate documents
	npx biome check --write
	$(TSX) scripts/gen-policy-docs.ts
	$(TSX) scripts/gen-api-docs.ts
	$(TSX) scripts/gen-guard-layout.ts
	$(TSX) scripts/gen-api.ts

test: build $(PREBUILDS) debs corpus oracle ## all tests: unit, kernel, e2e (these two as root) and vm
	$(TSX) scripts/test.ts

unit: $(ADDON) ## unit tests only
	$(TSX) scripts/test.ts unit

kernel: build ## tests of the running kernel only
	$(TSX) scripts/test.ts kernel

e2e: build $(PREBUILDS) debs ## tests of the commands and of unmodified programs only
	$(TSX) scripts/test.ts e2e

test-vm: build ## all tests in virtual machines: kernels 6.12 and 7 with tokens, 6.1 without
	$(TSX) scripts/test.ts vm-all

test-kill: build ## commands killed at 200 random moments each (in `make test`: 40)
	BPFTOKEN_TEST_KILLS=200 $(TSX) scripts/test.ts test/e2e/kill.test.ts

load: build ## 10,000 loans of a real daemon by 64 clients, 1,000 live at a time (in `make test`: 600)
	BPFTOKEN_TEST_LOANS=10000 $(TSX) scripts/test.ts test/kernel/daemon/load.test.ts

differential: build ## the kernel model against this kernel, 1,000,000 random cases (CASES=, SEED=; in `make test`: 20,000)
	$(TSX) test/kernel/model/differential.ts

differential-vm: build vm ## the same against kernels 7, 6.12 and 6.1 in virtual machines, 50,000 each, with sysctl 2 and 0 (KERNEL=, SYSCTL= choose)
	$(TSX) test/kernel/model/differential-vm.ts

mutate-model: build vm ## every rule of the kernel model changed once: random cases on some kernel must notice each
	$(TSX) test/kernel/model/mutate.ts

mutate-guard: $(MODULES) ## every place of the guard's model changed once: how many random stories tell that, on paper (STORIES=, SEED=)
	$(TSX) test/kernel/model/guard-mutation.ts

test-containers: build debs ## containers that ask by annotation, and a table of what was run, with verdicts
	@scripts/fetch-containers.sh trixie trixie-engines sid-engines || echo 'fetch-containers: tests of Podman 5 and Docker, or of Debian 13, will be skipped' >&2
	@scripts/fetch-containers.sh sid-sandboxes trixie-sandboxes || echo 'fetch-containers: tests of sandboxes will be skipped' >&2
	@scripts/build-witnesses.sh || echo 'build-witnesses: tests of programs in Go and Rust will be skipped' >&2
	$(TSX) test/containers.ts

guard-stories: build ## the guard on paper against the guard in a VM, 400 random stories (KERNEL=, STORIES=, SEED=)
	$(TSX) scripts/vm/vm.ts --kernel $(or $(KERNEL),7) --timeout 7200 -- node test/vm/story/main.ts $(or $(STORIES),400) $(or $(SEED),1)

prebuilds: ## what is native, for x64 and arm64, glibc and musl, as the package brings it
	scripts/prebuilds.sh

vm: ## QEMU and Debian's kernels, into .cache
	scripts/fetch-vm.sh

demo: build ## a minute's story with real results
	$(TSX) examples/demo/main.ts

deb: build $(PREBUILDS) ## packages for Debian and Ubuntu, into build/deb
	scripts/build-deb.sh

test-deb: build $(PREBUILDS) ## those packages: the same bytes when made again, lintian, installed and removed in a scratch system
	scripts/test-deb.sh

chromium: ## Debian's Chromium, to look at the page with, into .cache
	scripts/fetch-chromium.sh

test-page: build ## the page in Debian's Chromium (make chromium), as a person uses it
	$(TSX) scripts/test.ts test/page/page.test.ts

bench: build corpus oracle ## speed, as ratios against plain C
	$(TSX) bench/run.ts

debs: ## unmodified programs for the e2e tests, into .cache
	@scripts/fetch-debs.sh || echo 'fetch-debs: tests that need these programs will be skipped' >&2
	@scripts/fetch-containers.sh sid || echo 'fetch-containers: tests of containerd will be skipped' >&2
	@scripts/fetch-arm64.sh || echo 'fetch-arm64: what is prebuilt for arm64 will not be run' >&2

corpus: $(MODULES) ## BPF objects of Debian packages, into .cache, for the tests that read them
	@$(TSX) test/corpus/scan.ts || echo 'corpus: tests that need these objects will be skipped' >&2

selftests: ## the kernel's own BPF programs, of Debian's newest kernel, compiled into .cache
	@scripts/fetch-selftests.sh || echo 'selftests: tests of these objects will be skipped' >&2

test-selftests: build oracle selftests ## loading, CO-RE and plans of the kernel's own programs beside libbpf
	BPFTOKEN_TEST_CORPUS=selftests $(TSX) scripts/test.ts $(AGREEMENT)

# What the VM takes along is in its memory: a part of the objects at a time.
test-selftests-vm: build selftests vm ## plans of a part of them in a virtual machine (KERNEL=, PART=3/16)
	$(TSX) scripts/vm/vm.ts --kernel $(or $(KERNEL),7) --timeout 7200 \
		$$(ls .cache/selftests/objects/*.o | awk -v part=$(or $(PART),1/16) \
			'BEGIN { split(part, of, "/") } NR % of[2] == of[1] % of[2] { print "--with", $$0 }') \
		-- env BPFTOKEN_TEST_CORPUS=selftests node scripts/test.ts $(TRIED_PLANS)

oracle: $(MODULES) ## libbpf and types of other kernels to compare with, into .cache
	@test/corpus/oracle.sh || echo 'oracle: tests that compare with libbpf will be skipped' >&2
	@test/corpus/foreign-btf.sh || echo 'oracle: kernels that do not run here will be skipped' >&2

fuzz: $(MODULES) corpus ## hostile objects and programs for twenty minutes
	$(TSX) test/corpus/fuzz.ts --seconds 1200

objects: $(MODULES) ## compile the BPF C of the repository again, and make what is made from it
	scripts/build-bpf.sh
	$(TSX) scripts/gen-guard-layout.ts

clean: ## remove what was built; .cache stays
	rm -rf build dist prebuilds node_modules bench/bin

$(MODULES): package-lock.json
	scripts/setup.sh
	touch $@

$(ADDON): $(NATIVE_SOURCES) | $(MODULES)
	scripts/setup.sh --addon
	touch $@

# Some may be missing, which is said: the tests need those of this machine.
$(PREBUILDS): scripts/prebuilds.sh $(NATIVE_SOURCES)
	@scripts/prebuilds.sh || echo 'prebuilds: tests of what is missing will be skipped' >&2
	touch $@

$(DIST): $(SOURCES) | $(MODULES)
	npm run --silent build
	$(TSX) scripts/gen-cli-docs.ts
	$(TSX) scripts/simulator.ts
	touch $@
