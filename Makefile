# One Makefile, no recursion but for variants; `make help` lists the targets,
# config.mk holds local knobs.  Objects of variant V stand in build/$(V)/.
ifeq ($(origin CC),default)
CC := gcc
endif
PYTHON ?= /usr/bin/python3
PREFIX ?= /usr/local
V      ?= release
O      := build/$(V)
GOALS  := $(or $(MAKECMDGOALS),all)
# On all cores, unless told; a sub-make is told by the one above.
ifeq ($(or $(filter-out 0,$(MAKELEVEL)),$(filter -j% --jobserver%,$(MAKEFLAGS))),)
MAKEFLAGS += -j$(shell nproc)
endif
# Packages first: everything below asks pkg-config.  A sub-make need not.
ifneq ($(filter-out help clean deps,$(GOALS)),)
ifndef ROLLFS_DEPS
ROLLFS_DEPS := $(shell tools/install-deps >&2 && echo ok)
$(if $(ROLLFS_DEPS),,$(error the packages above could not be installed))
export ROLLFS_DEPS
endif
endif
PKGS   := jansson fuse3 libcurl libmicrohttpd gnutls libssl libcrypto
WARN   := -Wall -Wextra -Wshadow -Wformat=2 -Wvla -Wundef -Wstrict-prototypes \
          -Wmissing-prototypes -Wpointer-arith -Wwrite-strings -Wimplicit-fallthrough
HARD   := -O2 -g -D_FORTIFY_SOURCE=3 -fstack-protector-strong -fPIE
HOOKS  := -DROLLFS_TEST_HOOKS=1
# test = release with the hooks that the tests need; a release has none.
FLAGS_release := $(HARD)
FLAGS_test    := $(HARD) $(HOOKS)
FLAGS_asan    := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all $(HOOKS)
FLAGS_tsan    := -O1 -g -fsanitize=thread $(HOOKS)
FLAGS_cov     := -O0 -g --coverage -fprofile-update=atomic $(HOOKS)
FLAGS_fuzz    := -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all $(HOOKS) \
                 -Wno-implicit-fallthrough -Wno-format-nonliteral
LD_release    := -pie -Wl,-z,relro,-z,now
LD_test       := $(LD_release)
$(if $(FLAGS_$(V)),,$(error V=$(V): use release, asan, tsan or cov))
-include config.mk
VERSION := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
CFLAGS_PKG := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
LIBS_PKG   := $(shell pkg-config --libs $(PKGS) 2>/dev/null)
C_ALL  = -std=gnu11 -D_GNU_SOURCE -I. $(WARN) $(FLAGS_$(V)) $(CFLAGS_PKG) $(CFLAGS)
LDALL  = $(LD_$(V)) -Wl,--as-needed $(LDFLAGS)
LIBS   = -lrocksdb -linih -lcsv -lgmp $(LIBS_PKG) -lm -lpthread
# A task is a process, many for each job: RocksDB and C++ from their archives
# (librocksdb-dev has or needs them all) halve the time that it takes to start.
STATIC  := -Wl,-Bstatic -lrocksdb -lgflags -lsnappy -lz -lbz2 -llz4 -lzstd -lstdc++ -Wl,-Bdynamic -static-libgcc
ROCKS_A := $(wildcard $(shell $(CC) -print-file-name=librocksdb.a))
STATIC  := $(if $(filter release test,$(V)),$(if $(ROCKS_A),$(STATIC)))

PROGS  := rollfs rollsite rollfs-task
LIB_C  := $(filter-out %/main.c,$(wildcard lib/*.c transfer/*.c scheduler/*.c fs/*.c \
            components/*.c components/crypto/*.c components/math/*.c))
SRC    := $(LIB_C) $(wildcard */main.c tools/*.c)
TESTSRC := $(wildcard tests/unit/*.c tests/fuzz/*.c)
UNIT   := $(patsubst %.c,$(O)/%,$(wildcard tests/unit/test_*.c))
REPLAY := $(patsubst %.c,$(O)/%,$(wildcard tests/fuzz/fuzz_*.c))
BENCH  := $(patsubst tools/%.c,$(O)/tools/%,$(wildcard tools/bench_*.c))
# The version stands alone: a commit that changes no code links the programs
# again, and not all the tests.
V_O    := $(O)/lib/version.o
obj     = $(filter-out $(V_O),$(patsubst %.c,$(O)/%.o,$(filter $(1),$(LIB_C))))
# Archives: a program takes from them only what it uses.
ARCH   := $(O)/fs.a $(O)/scheduler.a $(O)/components.a $(O)/transfer.a $(O)/lib.a

all: $(PROGS:%=$(O)/%) ## build rollfs, rollsite and rollfs-task (V=release|asan|tsan|cov)

programs: all $(UNIT) $(REPLAY) ## build what check runs

$(O)/rollfs:      $(O)/fs/main.o $(O)/fs.a $(O)/scheduler.a $(O)/transfer.a $(O)/lib.a
$(O)/rollsite:    $(O)/transfer/main.o $(O)/transfer.a $(O)/lib.a
$(O)/rollfs-task: $(O)/components/main.o $(O)/components.a $(O)/transfer.a $(O)/lib.a
$(O)/fs.a:         $(call obj,fs/%.c)
$(O)/scheduler.a:  $(call obj,scheduler/%.c)
$(O)/transfer.a:   $(call obj,transfer/%.c)
$(O)/components.a: $(call obj,components/%.c)
$(O)/lib.a:        $(call obj,lib/%.c)
$(PROGS:%=$(O)/%): $(V_O)
$(UNIT) $(REPLAY) $(BENCH): %: %.o $(ARCH) | $(V_O)
$(UNIT): private LIBS += -lcmocka
$(REPLAY:=.o): private CFLAGS += $(if $(filter fuzz,$(V)),,-DREPLAY)
$(O)/tests/fuzz/fuzz_intersection: private LIBS += -lcmocka # of the harness
$(REPLAY): private LIBS += $(if $(filter fuzz,$(V)),-fsanitize=fuzzer)
$(addprefix $(O)/tests/unit/test_,transfer transfer_end transfer_file stream table_message) $(O)/tools/bench_transfer: | $(O)/rollsite # which they start
$(O)/rollfs-task: private LIBS := $(STATIC) $(LIBS)
$(PROGS:%=$(O)/%) $(UNIT) $(REPLAY) $(BENCH):
	$(CC) $(C_ALL) $(LDALL) -o $@ $(V_O) $(filter-out $(V_O),$^) $(LIBS)
%.a:
	@rm -f $@
	@mkdir -p $(@D)
	ar rcs $@ $^
$(O)/%.o: %.c $(O)/.flags
	@mkdir -p $(@D)
	$(CC) $(C_ALL) -MMD -MP -c -o $@ $<
$(V_O): private CFLAGS += -DROLLFS_VERSION='"$(VERSION)"'
$(V_O): $(O)/.version
# Rebuild when the flags or the version change, and only then.
$(O)/.flags: private TEXT = $(CC) $(C_ALL)
$(O)/.version: private TEXT = $(VERSION)
$(O)/.flags $(O)/.version: FORCE
	@mkdir -p $(@D); echo '$(TEXT)' | cmp -s - $@ || echo '$(TEXT)' >$@

demo: all ## three parties on this machine train a model (KEEP=0: torn down at the end)
	@B=$(O) KEEP=$(KEEP) tools/demo build/demo

# The suites need the hooks of a test build, which a release has not.
ifeq ($(V),release)
check: ; @+$(MAKE) --no-print-directory V=test check ## every test (V=asan|tsan|cov: in that build; T="unit mount/test_jobs.py": some)
else
check: $(if $(filter-out unit% fuzz%,$(or $(T),all)),all) $(UNIT) $(REPLAY)
	@B=$(O) $(PYTHON) tests/run $(T)
endif

# Their short forms are in check.
SOAKED := $(or $(T),$(patsubst %,mount/test_%.py,exactly_once relay network disk_full states soak fs_load fs_model table_scale power_cut))
ifeq ($(V),release)
soak: ; @+$(MAKE) --no-print-directory V=test soak ## hours of deaths, bad networks and large files (T=mount/test_relay.py: one file)
else
SOAKED_UNIT := $(if $(T),,$(patsubst %.c,$(O)/%,$(shell grep -ls 'getenv("SOAK")' tests/unit/*.c)))
soak: all $(SOAKED_UNIT)
	@for t in $(SOAKED_UNIT); do SOAK=1 $$t || exit 1; done
	@SOAK=1 B=$(O) $(PYTHON) -m pytest -q -s -rfE -p no:cacheprovider --durations=20 $(SOAKED:%=tests/%)
endif

# B of the environment is the tests' build directory: not meant here.
PART := $(if $(filter command,$(firstword $(origin B))),$(B))
bench: $(if $(filter crypto transfer,$(PART)),$(filter %bench_$(PART),$(BENCH)),all $(if $(filter push psi,$(PART)),,$(BENCH))) ## measure and write build/bench.tsv (B=crypto|transfer|tables|jobs|psi|push: one part; psi and push only so)
	@O=$(O) $(PYTHON) tools/bench $(PART)

ifeq ($(V),fuzz)
fuzz: $(REPLAY)
	@$(if $(SECONDS),for f in $(REPLAY); do n=build/fuzz/new/$${f##*/}; echo "$${f##*/}"; mkdir -p $$n; \
	    $$f -max_total_time=$(SECONDS) -verbosity=0 -artifact_prefix=build/fuzz/ \
	    $$n tests/fuzz/corpus/$${f##*/} || exit 1; done,)
else
fuzz: ; @+$(MAKE) --no-print-directory V=fuzz CC=clang fuzz ## libFuzzer programs in build/fuzz/tests/fuzz (clang); SECONDS=30 runs each
endif

cov: ## coverage of the whole suite
	@if [ -d build/cov ]; then find build/cov -name '*.gcda' -delete; fi
	@+$(MAKE) --no-print-directory V=cov check
	gcovr -r . --object-directory build/cov -e tests/ --print-summary

# One file at a time, so that make runs them beside each other.
LINTED := $(SRC:%.c=build/lint/%.analyzer) $(SRC:%.c=build/lint/%.cppcheck) $(SRC:%.c=build/lint/%.tidy)
lint: $(LINTED) ## layers, format, static analysis, shell scripts
	tools/check-layers.sh
	clang-format --dry-run -Werror $(SRC) $(TESTSRC) $(shell git ls-files '*.h')
	shellcheck $(shell grep -lE '^#!/bin/(ba)?sh' tools/* .ci/run 2>/dev/null)
	$(PYTHON) -c 'import ast, sys; [ast.parse(open(f).read(), f) for f in sys.argv[1:]]' \
	    $(shell git grep -lE '^#!.*python' -- tools tests) $(shell git ls-files '*.py')
	@echo lint: clean
build/lint/%.analyzer: %.c
	@mkdir -p $(@D)
	gcc -std=gnu11 -D_GNU_SOURCE -DROLLFS_VERSION='"lint"' -I. $(WARN) $(CFLAGS_PKG) -O1 -fanalyzer -Werror -MMD -MP -MF $@.d -MT $@ -c -o /dev/null $<
	@touch $@
# cppcheck 2.10 does not know the cleanup attribute: -fanalyzer and the address
# sanitizer look for leaks.
CPPCHECK := -q --std=c11 --enable=warning,portability,performance --inline-suppr --error-exitcode=1 \
            --library=tools/cppcheck.cfg --suppress=memleak --suppress=resourceLeak
build/lint/%.cppcheck: %.c tools/cppcheck.cfg
	@mkdir -p $(@D)
	cppcheck $(CPPCHECK) -I. $<
	@touch $@
build/lint/%.tidy: %.c .clang-tidy
	@mkdir -p $(@D)
	clang-tidy --quiet $< -- -std=gnu11 -D_GNU_SOURCE -DROLLFS_VERSION='"lint"' -I. $(CFLAGS_PKG) 2>/dev/null
	@touch $@

install: all ## install below DESTDIR and PREFIX (/usr/local)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)/sbin $(DESTDIR)$(PREFIX)/share/doc/rollfs
	install -m 755 $(PROGS:%=$(O)/%) tools/rollfs-pki $(DESTDIR)$(PREFIX)/bin
	ln -sf $(PREFIX)/bin/rollfs $(DESTDIR)/sbin/mount.fuse.rollfs
	install -m 644 README.md LICENSE $(wildcard docs/*.md) $(DESTDIR)$(PREFIX)/share/doc/rollfs

clean: ## remove build/; refuses while something below it is mounted
	@m=$$(awk -v d="$(CURDIR)/build/" 'index($$5, d) == 1 { print $$5 }' /proc/self/mountinfo); \
	if [ -n "$$m" ]; then echo "clean: mounted:" $$m >&2; \
	echo "clean: tools/sandbox down build/demo (or umount) first" >&2; exit 1; fi
	rm -rf build

help: ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## */\t/' | expand -t 10
deps: ## install missing Debian packages
	@tools/install-deps
FORCE:
.DELETE_ON_ERROR:
.PHONY: all programs demo check soak bench fuzz cov lint install clean help deps FORCE
.SECONDARY:
-include $(SRC:%.c=$(O)/%.d) $(UNIT:=.d) $(REPLAY:=.d) $(BENCH:=.d) $(wildcard build/lint/*/*.d build/lint/*/*/*.d)
