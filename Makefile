# vmctl: `make demo` shows it, `make test` proves it. Both install what they
# need from Debian packages by name; they want root and Go.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
export PATH := $(PATH):/usr/local/go/bin:/usr/sbin:/sbin
export CGO_ENABLED ?= 0
# As everything that is released or put into a guest is built, whatever else the
# shell says: nothing twice. No debugger reads these programs.
FLAGS := -trimpath -gcflags=all=-dwarf=false
export GOFLAGS := $(filter-out $(FLAGS),$(GOFLAGS)) $(FLAGS)

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo 0.0.0)
FUZZTIME ?= 10s
PACKAGES := qemu-system-x86 qemu-utils seabios busybox-static iproute2 lz4 nftables e2fsprogs kmod gcc libc6-dev rpm fence-agents openssl

# Tests with hosts, networks and real guests: run without the race detector.
E2E := ./node/e2e ./node/e2e/lab ./node/e2e/bench/...
CHAOSTEST := ./node/e2e/chaos

.PHONY: all
all: dist/vmctl

.PHONY: dist/vmctl
dist/vmctl:
	@mkdir -p dist
	go build -trimpath -ldflags "-s -w -X vmctl/node/cli.version=$(VERSION)" -o $@ .

.PHONY: deps
deps:
	@missing=(); for p in $(PACKAGES); do \
	  [ "$$(dpkg-query -W -f '$${db:Status-Status}' "$$p" 2>/dev/null)" = installed ] || missing+=("$$p"); done; \
	if [ $${#missing[@]} -gt 0 ]; then \
	  echo "installing $${missing[*]}"; \
	  apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$${missing[@]}" >/dev/null; fi

.PHONY: guest
guest: deps
	go run ./packaging/testguest/build -cache .cache/guest

.PHONY: demo
demo: deps
	go run ./node/e2e/demo

.PHONY: test
test: unit sim-replica together

# What the model and the simulator do needs no clock, and has what the hosts of the
# end-to-end tests leave of the processors: they wait most of their time.
.PHONY: together
together:
	@$(MAKE) --no-print-directory -j2 --output-sync=line e2e sim-ha SIMNICE='nice -n 19'

# TestTools of the module's root vets everything. There is memory enough: compilers
# collect no garbage, tests less. The package that takes longest begins first.
UNIT = $$(go list ./... | grep -v -e '^vmctl/node/e2e' -e '^vmctl/packaging/testguest$$')
.PHONY: unit
unit: deps
	GOGC=off GOMEMLIMIT=512MiB CGO_ENABLED=1 go test -race -vet=off -ldflags=-w -p 3 -timeout 20m -exec 'env -u GOMEMLIMIT GOGC=400' \
	  . ./packaging/package $(UNIT)

# Who may run a guest: every state within small bounds, 10^4 schedules of at least
# twenty faults each, the mutants that they must catch, and every scenario. And what
# a replica is after a crash or a power cut at each of its changes, and after one at
# 200 random moments; and what the store is after one.
# The halves run beside each other: the second waits at times, for the kernel too.
SIMNICE :=
QUIETLY := grep -v -e '^=== ' -e '^ *--- PASS: .*/'
.PHONY: sim sim-ha sim-replica
sim:
	@$(MAKE) --no-print-directory -j2 --output-sync=target sim-ha sim-replica

sim-ha: export GOGC = 1600
sim-ha:
	GOGC=400 GOMEMLIMIT=4GiB $(SIMNICE) go test -count=1 -timeout 30m -v ./ha/model | grep -v '^=== '
	$(SIMNICE) go test -count=1 -timeout 30m -v -run 'TestSchedules|TestBrokenWorlds' ./ha/sim -ha.schedules=10000 | grep -v '^=== '
	$(SIMNICE) go test -count=1 -timeout 30m -v -run TestMutants ./ha | grep -v '^=== '
	$(SIMNICE) go test -count=1 -timeout 30m -run 'TestScenario|TestTakeoverTime|TestInvariants' ./ha/sim ./ha/recovery

sim-replica: export GOGC = 300
sim-replica:
	go test -count=1 -v -run 'TestCutAtEveryChange|TestPowerCutAtAnyMoment|TestCrashAtEveryChange|TestReplicaEquals' ./snapshot ./snapshot/replica ./snapshot/replicator | $(QUIETLY)
	go test -count=1 -run '^TestPowerCut$$' ./store

# The same for as long as one likes; what was done is kept, SOAK=-resume goes on.
SOAK ?=
.PHONY: soak
soak:
	go run ./ha/sim/soak -count 1000000 -state .cache/soak.json $(SOAK)

# Chaos beside the scenarios: a lab waits most of its time. A failure of the
# chaos names its seed, which throws the same faults again.
.PHONY: e2e
e2e: guest
	go test -count=1 -vet=off -ldflags=-w -timeout 30m -p 3 -parallel 3 $(CHAOSTEST) $(E2E) ./packaging/testguest

# Random faults: three minutes of them in `make test`, 60 and more here.
CHAOS ?= -chaos.time=30m -chaos.faults=60
.PHONY: chaos
chaos: guest
	go test -count=1 -timeout 60m -v $(CHAOSTEST) $(CHAOS)

.PHONY: bench
bench: deps guest
	go run ./node/e2e/bench

# One witness for up to a thousand pairs: no guests, no QEMU.
.PHONY: bench-witness
bench-witness:
	go run ./node/e2e/bench/witness

# When a busy guest has its last tick after its lease has ended.
.PHONY: bench-guard
bench-guard:
	go test -count=1 -timeout 30m -v -run '^TestLastTick$$' ./vm/guard -deadline.n=120 -deadline.claim=1ms

# Power cut to the guest's answer, ours and pacemaker's in turns: half an hour.
# FAILOVER="-append -for 8m" does a part of it and keeps the samples.
FAILOVER ?=
.PHONY: bench-failover
bench-failover: PACKAGES += mmdebstrap systemd-container
bench-failover: deps guest
	go run ./node/e2e/bench/failover $(FAILOVER)

# What replicating a disk costs its writer: ours, and QEMU's own mirror, in turns.
# REPLICATION="-append -for 8m" does a part of it and keeps the samples.
REPLICATION ?=
.PHONY: bench-replication
bench-replication: PACKAGES += sqlite3
bench-replication: deps guest
	@mkdir -p dist # `go run` would not hand a signal on that is for this process alone
	go build -o dist/bench-replication ./node/e2e/bench/replication && exec dist/bench-replication $(REPLICATION)

# What checkpoints cost a guest, beside savevm; how pages are found; eight guests.
CHECKPOINTS ?=
.PHONY: bench-checkpoints
bench-checkpoints: PACKAGES += sqlite3
bench-checkpoints: deps guest
	go run ./node/e2e/bench/checkpoints $(CHECKPOINTS)

# A lease's end to the guest's first output, with a QEMU that waits and without.
TAKEOVER ?=
.PHONY: bench-takeover
bench-takeover: deps guest
	go run ./node/e2e/bench/takeover $(TAKEOVER)

.PHONY: package
package:
	@rm -f dist/vmctl_*.deb dist/vmctl-*.rpm
	go run ./packaging/package/build -version "$(VERSION)" -out dist

.PHONY: fuzz
fuzz:
	@for pkg in $$(go list ./...); do \
	  for target in $$(go test -list '^Fuzz' "$$pkg" 2>/dev/null | grep '^Fuzz' || true); do \
	    echo "$$pkg $$target"; go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x "$$pkg" | tail -1; done; done

.PHONY: clean
clean:
	rm -rf dist .cache
