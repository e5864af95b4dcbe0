# One Makefile, no recursion but for variants; `make help` lists the targets,
# config.mk holds local knobs.  Objects of variant V stand in build/$(V)/.
ifeq ($(origin CC),default)
CC := gcc
endif
PYTHON ?= /usr/bin/python3
PREFIX ?= /usr/local
V      ?= release
B      := build/$(V)
PKGS   := jansson fuse3 libcurl libmicrohttpd gnutls libcrypto
WARN   := -Wall -Wextra -Wshadow -Wformat=2 -Wvla -Wundef -Wstrict-prototypes \
          -Wmissing-prototypes -Wpointer-arith -Wwrite-strings -Wimplicit-fallthrough
HARD   := -O2 -g -D_FORTIFY_SOURCE=3 -fstack-protector-strong -fPIE
HOOKS  := -DROLLFS_TEST_HOOKS=1
# test = release with the hooks that the tests need; a release has none.
FLAGS_release := $(HARD)
FLAGS_test    := $(HARD) $(HOOKS)
FLAGS_asan    := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all $(HOOKS)
FLAGS_tsan    := -O1 -g -fsanitize=thread $(HOOKS)
FLAGS_cov     := -O0 -g --coverage $(HOOKS)
LD_release    := -pie -Wl,-z,relro,-z,now
LD_test       := $(LD_release)
$(if $(FLAGS_$(V)),,$(error V=$(V): use release, asan, tsan or cov))
-include config.mk
VERSION := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
C_ALL  = -std=gnu11 -D_GNU_SOURCE -I. $(WARN) $(FLAGS_$(V)) \
         $(shell pkg-config --cflags $(PKGS) 2>/dev/null) $(CFLAGS)
LDALL  = $(LD_$(V)) -Wl,--as-needed $(LDFLAGS)
LIBS   = -lrocksdb -linih -lcsv -lgmp $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lm -lpthread

PROGS  := rollfs rollsite rollfs-task
LIB_C  := $(filter-out %/main.c,$(wildcard lib/*.c transfer/*.c scheduler/*.c fs/*.c \
            components/*.c components/crypto/*.c components/math/*.c))
SRC    := $(LIB_C) $(wildcard */main.c tools/*.c)
UNIT   := $(patsubst %.c,$(B)/%,$(wildcard tests/unit/test_*.c))
REPLAY := $(patsubst %.c,$(B)/%,$(wildcard tests/fuzz/fuzz_*.c))
BENCH  := $(patsubst tools/%.c,$(B)/tools/%,$(wildcard tools/bench_*.c))
obj     = $(patsubst %.c,$(B)/%.o,$(filter $(1),$(LIB_C)))
# Archives: a program takes from them only what it uses.
ARCH   := $(B)/fs.a $(B)/scheduler.a $(B)/components.a $(B)/transfer.a $(B)/lib.a

all: deps $(PROGS:%=$(B)/%) ## build rollfs, rollsite and rollfs-task (V=release|asan|tsan|cov)

$(B)/rollfs:      $(B)/fs/main.o $(B)/fs.a $(B)/scheduler.a $(B)/transfer.a $(B)/lib.a
$(B)/rollsite:    $(B)/transfer/main.o $(B)/transfer.a $(B)/lib.a
$(B)/rollfs-task: $(B)/components/main.o $(B)/components.a $(B)/transfer.a $(B)/lib.a
$(B)/fs.a:         $(call obj,fs/%.c)
$(B)/scheduler.a:  $(call obj,scheduler/%.c)
$(B)/transfer.a:   $(call obj,transfer/%.c)
$(B)/components.a: $(call obj,components/%.c)
$(B)/lib.a:        $(call obj,lib/%.c)
$(UNIT) $(REPLAY) $(BENCH): %: %.o $(ARCH)
$(UNIT): private LIBS += -lcmocka
$(REPLAY:=.o): private CFLAGS += -DREPLAY
$(PROGS:%=$(B)/%) $(UNIT) $(REPLAY) $(BENCH):
	$(CC) $(C_ALL) $(LDALL) -o $@ $^ $(LIBS)
%.a:
	@rm -f $@
	ar rcs $@ $^
$(B)/%.o: %.c $(B)/.flags
	@mkdir -p $(@D)
	$(CC) $(C_ALL) -MMD -MP -c -o $@ $<
$(B)/lib/version.o: CFLAGS += -DROLLFS_VERSION='"$(VERSION)"'
$(B)/.flags: FORCE # rebuild when the flags change, and only then
	@mkdir -p $(@D); echo '$(CC) $(C_ALL)' | cmp -s - $@ || echo '$(CC) $(C_ALL)' >$@

deps: ## install missing Debian packages
	@tools/install-deps
FORCE:
.PHONY: all deps FORCE
.SECONDARY:
-include $(LIB_C:%.c=$(B)/%.d) $(UNIT:=.d) $(REPLAY:=.d) $(BENCH:=.d) $(B)/fs/main.d $(B)/transfer/main.d $(B)/components/main.d
