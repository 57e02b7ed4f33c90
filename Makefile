# Each target does everything it needs: dependencies first, then the work.
SWIFT ?= swift

# Tests have repositories and passwords of their own; a caller's would get in.
unexport BGBACKUP_REPOSITORY BGBACKUP_PASSWORD_FILE BGBACKUP_PASSWORD_COMMAND BGBACKUP_WRITER_KEY_FILE
unexport BGBACKUP_STATE_DIR BGBACKUP_CACHE_DIR

.PHONY: build strict-s3 test test-s3 simulate lint format bench fuzz demo install uninstall deb test-deb test-boot

# Where things go; DESTDIR is put before them all.
PREFIX ?= /usr
SYSCONFDIR ?= /etc

build:            ## the optimized program, which runs without a toolchain: .build/release/bgbackup
	@scripts/install-deps
	$(SWIFT) build -c release --static-swift-stdlib --product bgbackup

strict-s3:        ## the strict S3 server of the tests: .build-strict/release/strict-s3
	@scripts/install-deps
	$(SWIFT) build -c release --package-path Tests/StrictS3 --scratch-path .build-strict --product strict-s3

# Three processes: those that wait for sockets are alone, and those that wait for
# programs come last, because they hold every thread of the cooperative pool.
test: lint strict-s3 ## all tests; what cannot run here says so and is skipped
	@scripts/install-deps --test
	$(SWIFT) build --build-tests
	python3 Tests/StrictS3/check.py .build-strict/release/strict-s3 || [ $$? = 77 ]
	$(SWIFT) test --skip-build --filter '^ObjectStorageTests[.]'
	$(SWIFT) test --skip-build --skip '^(ObjectStorageTests|EndToEndTests|FaultTests)[.]'
	$(SWIFT) test --skip-build --filter '^(EndToEndTests|FaultTests)[.]'

test-s3: strict-s3 ## the end-to-end tests once more, on each S3 server
	@scripts/install-deps --test
	scripts/test-s3

simulate:         ## ten thousand schedules of backups, forgets and prunes against each other
	$(SWIFT) build --build-tests
	SWIFT_DETERMINISTIC_HASHING=1 BGBACKUP_SIMULATIONS=10000 $(SWIFT) test --skip-build --filter PruneSimulationTests

lint:             ## layers, documents, units, format
	@scripts/check-layers
	@scripts/check-docs
	@scripts/check-units
	$(SWIFT) format lint --strict --recursive --parallel Package.swift Sources Tests

format:
	$(SWIFT) format --in-place --recursive --parallel Package.swift Sources Tests

bench: build strict-s3 ## bgbackup beside cp, tar, borg and restic on one 4 GB volume, then on S3 servers
	Benchmarks/compare --keep
	Benchmarks/compare --s3

fuzz:             ## every parser of untrusted bytes; FUZZ_SECONDS=60
	@scripts/install-deps
	Fuzz/run

demo:             ## a real Qdrant volume, backed up, changed, backed up, restored, compared
	scripts/demo

install: build    ## the program, units, completions, manual; DESTDIR=, PREFIX=/usr, SYSCONFDIR=/etc
	@DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' SYSCONFDIR='$(SYSCONFDIR)' scripts/install-tree install

uninstall:        ## what install installed; configuration, state and repositories stay
	@DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' SYSCONFDIR='$(SYSCONFDIR)' scripts/install-tree uninstall

deb: build        ## dist/bgbackup_VERSION_ARCHITECTURE.deb
	scripts/make-deb

test-deb: deb     ## installs, runs, upgrades, removes and purges the package in a root of its own
	scripts/test-deb

test-boot: deb    ## boots a systemd in namespaces of its own; its timers run the package's units
	scripts/test-boot
