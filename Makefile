# holdfast. The two commands that matter: make demo, make test.

GO      ?= go
KEY     ?= tpm
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)
BUILD   := GO='$(GO)' VERSION='$(VERSION)' scripts/build.sh

.PHONY: all build demo test race bench soak fuzz lint cross clean

all: build

build: ## bin/holdfast (static), bin/holdfast-pkcs11 and bin/holdfast-lab, which need gcc, and the lab libssl-dev
	$(BUILD) bin/holdfast ./cmd/holdfast
	$(BUILD) bin/holdfast-pkcs11 ./cmd/holdfast-pkcs11
	$(BUILD) bin/holdfast-lab ./cmd/holdfast-lab

demo: ## a session from a key (KEY=tpm|file|pkcs11), used by the real AWS CLI, in a made-up AWS
	scripts/setup.sh demo
	$(MAKE) --no-print-directory build
	KEY=$(KEY) scripts/demo.sh

test: ## every test
	scripts/setup.sh test
	$(GO) test -timeout 30m ./...

race: ## every test under the race detector
	scripts/setup.sh test
	$(GO) test -race -timeout 45m ./...

bench: ## whole processes and signatures, each beside the bare operation
	scripts/setup.sh test
	$(GO) run ./scripts/bench
	$(GO) run ./scripts/bench/serve
	$(GO) test -run '^$$' -bench . -benchtime 2s ./pkcs11/cryptoki ./pkcs11/hosted
	@echo 'signing with a TPM: aims: of-bare at least 0.95, commands/signature 1'
	$(GO) test -run '^$$' -bench . -benchtime 2s ./tpm

soak: ## serve for 20 minutes under load, with faults and renewed keys in a TPM
	scripts/setup.sh test
	$(GO) run ./scripts/soak -for 20m

fuzz: ## each fuzz target for FUZZTIME (60s)
	scripts/fuzz.sh

lint:
	scripts/lint.sh

cross: ## holdfast for every platform
	scripts/cross.sh

clean:
	rm -rf bin
