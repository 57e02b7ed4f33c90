# Each target does everything it needs: dependencies first, then the work.
SWIFT ?= swift

.PHONY: build test lint format bench fuzz demo

build:            ## the optimized program: .build/release/bgbackup
	@scripts/install-deps
	$(SWIFT) build -c release --product bgbackup

test: lint        ## all tests; what cannot run here says so and is skipped
	@scripts/install-deps --test
	$(SWIFT) build --build-tests
	$(SWIFT) test --skip-build

lint:             ## layers, documents, format
	@scripts/check-layers
	@scripts/check-docs
	$(SWIFT) format lint --strict --recursive --parallel Package.swift Sources Tests

format:
	$(SWIFT) format --in-place --recursive --parallel Package.swift Sources Tests

bench: build      ## bgbackup beside cp, tar, borg and restic on one 4 GB volume
	Benchmarks/compare

fuzz:             ## every parser of untrusted bytes; FUZZ_SECONDS=60
	@scripts/install-deps
	Fuzz/run

demo:             ## a real Qdrant volume, backed up, changed, backed up, restored, compared
	scripts/demo
