# apiproxy. `make help` lists what there is.
BUILD ?= build
DEPS ?= .deps
CC ?= gcc
CFLAGS ?= -O2 -g
PREFIX ?= /usr/local
PYTHON ?= python3
VENV ?= .venv
FUZZ_SECONDS ?= 60
ifeq ($(origin CC),default)
CC := gcc
endif

# Libraries that Debian has too old are in DEPS (scripts/install-deps.sh) and come first.
PACKAGES = "libmicrohttpd >= 1.0.1" libcurl "hiredis >= 1.0" hiredis_ssl libcjson inih libjwt openssl zlib \
	libbrotlidec libzstd libcrypt
PKG_CONFIG = PKG_CONFIG_PATH="$(abspath $(DEPS))/lib/pkgconfig:$$PKG_CONFIG_PATH" pkg-config
PKG_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(PACKAGES) 2>/dev/null)
PKG_LIBS := $(shell $(PKG_CONFIG) --libs $(PACKAGES) 2>/dev/null)

# SANITIZE is what asan, tsan and fuzz build with; hardening is for all else.
WARNINGS = -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla
FORTIFY = $(if $(filter -O1 -O2 -O3 -Os,$(CFLAGS)),-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
HARDENING = $(if $(SANITIZE),,-fstack-protector-strong $(FORTIFY)) -fPIE -ffunction-sections -fdata-sections
ALL_CFLAGS = -std=gnu11 -D_GNU_SOURCE -Isrc -I$(BUILD) $(WARNINGS) $(CFLAGS) $(HARDENING) $(SANITIZE) $(PKG_CFLAGS) \
	-pthread -MMD -MP
ALL_LDFLAGS = $(CFLAGS) $(SANITIZE) $(LDFLAGS) -pthread -pie -Wl,-z,relro,-z,now -Wl,--gc-sections -Wl,--as-needed
LIBS = $(PKG_LIBS) -lm

# The chart library is Debian's; the pages and scripts are ours. All become part of the binary.
CHART := $(firstword $(wildcard /usr/share/javascript/chart.js/chart.min.js /usr/share/javascript/chart.js/chart.umd.js) \
	/usr/share/javascript/chart.js/chart.min.js)
EMBEDDED := $(sort $(shell find static -type f 2>/dev/null) $(wildcard src/*/*.lua src/*/*.json)) $(CHART)

SOURCES := $(sort $(wildcard src/*.c src/*/*.c))
OBJECTS := $(SOURCES:%.c=$(BUILD)/%.o)
LIBRARY := $(BUILD)/libapiproxy.a
UNIT_TESTS := $(patsubst %.c,$(BUILD)/%,$(sort $(wildcard tests/unit/test_*.c)))
BENCHMARKS := $(patsubst %.c,$(BUILD)/%,$(sort $(wildcard tests/bench/bench_*.c)))
FUZZERS := $(patsubst %.c,$(BUILD)/%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))

.DELETE_ON_ERROR:
.SECONDARY:
# One short line a step; `make V=1` shows the commands.
Q = $(if $(V),,@)
say = $(if $(V),,@printf '  %-5s %s\n' $(1) $@)

.PHONY: all run test unit unit-tests e2e browser bench asan tsan fuzz fuzzers lint format install clean help packages

all: $(BUILD)/apiproxy ## build build/apiproxy

# ---- building ----------------------------------------------------------------------------------

$(BUILD)/apiproxy: $(BUILD)/src/main.o $(LIBRARY)
	$(call say,LINK)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

# Everything but main, so that a unit test links just what it uses.
$(LIBRARY): $(filter-out $(BUILD)/src/main.o,$(OBJECTS)) $(BUILD)/embedded.o
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(BUILD)/%.o: %.c | packages
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(ALL_CFLAGS) -c -o $@ $<

# Pages and Lua scripts become part of the binary (src/base/embedded.h).
$(BUILD)/embedded.S: $(EMBEDDED) scripts/embed.sh
	@mkdir -p $(@D)
	$(call say,EMBED)
	$(Q)scripts/embed.sh $(EMBEDDED) > $@
$(BUILD)/embedded.o: $(BUILD)/embedded.S $(EMBEDDED)
	$(Q)$(CC) -c -o $@ $<

$(UNIT_TESTS): %: %.o $(LIBRARY)
	$(call say,LINK)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ -lcmocka -lbrotlienc $(LIBS)

$(BENCHMARKS) $(FUZZERS): %: %.o $(LIBRARY)
	$(call say,LINK)
	$(Q)$(CC) $(ALL_LDFLAGS) $(FUZZ_ENGINE) -o $@ $^ $(LIBS)

packages:
ifeq ($(PKG_LIBS),)
	@echo "Libraries are missing; scripts/install-deps.sh installs them (make run does it too). pkg-config says:" >&2
	@$(PKG_CONFIG) --print-errors --exists $(PACKAGES)
endif

# ---- running -----------------------------------------------------------------------------------

run: ## install what is missing, build, and serve on http://localhost:8000
	@scripts/install-deps.sh run
	@$(MAKE) --no-print-directory all
	@exec $(BUILD)/apiproxy

# ---- testing -----------------------------------------------------------------------------------

test: ## install what the tests need, run all of them, close with "N passed, N failed"
	@scripts/install-deps.sh run test
	@$(MAKE) --no-print-directory $(VENV)/.installed all
	@MAKE="$(MAKE)" scripts/run-tests.sh lint unit e2e browser asan tsan

$(VENV)/.installed: scripts/requirements.txt $(wildcard tests/requirements.txt)
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(^:%=-r %)
	@touch $@

unit: unit-tests ## run the unit tests
	@scripts/run-unit-tests.sh $(UNIT_TESTS)
unit-tests: $(UNIT_TESTS)

e2e: all $(VENV)/.installed ## run the end-to-end tests against build/apiproxy
	@scripts/run-pytest.sh e2e $(BUILD)/apiproxy tests/e2e

browser: all $(VENV)/.installed ## run the tests of the pages in Chromium
	@command -v chromium >/dev/null || $(VENV)/bin/python -m playwright install --with-deps chromium
	@scripts/run-pytest.sh browser $(BUILD)/apiproxy tests/browser

asan: $(VENV)/.installed ## unit and end-to-end tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@$(MAKE) --no-print-directory BUILD=build-asan CFLAGS="-O1 -g -fno-omit-frame-pointer" \
		SANITIZE="-fsanitize=address,undefined -fno-sanitize-recover=undefined" all unit
	@scripts/run-pytest.sh asan build-asan/apiproxy tests/e2e -m "not timing and not slow"

# ThreadSanitizer wants its own places in memory, which a randomised layout may have taken.
tsan: $(VENV)/.installed ## unit tests and the concurrency tests under ThreadSanitizer
	@export RUNNER="$$(setarch -R true 2>/dev/null && echo setarch -R)" && \
	$(MAKE) --no-print-directory BUILD=build-tsan CFLAGS="-O1 -g" SANITIZE=-fsanitize=thread all unit && \
	scripts/run-pytest.sh tsan build-tsan/apiproxy tests/e2e -m "concurrency and not timing"

bench: ## measure beside nginx and HAProxy, in one run; BENCH_ARGS="--quick --scene NAME"
	@scripts/install-deps.sh run bench
	@$(MAKE) --no-print-directory all benchmarks
	@for b in $(BENCHMARKS); do $$b || exit 1; done
	@$(PYTHON) tests/bench/run.py --binary $(BUILD)/apiproxy $(BENCH_ARGS)
benchmarks: $(BENCHMARKS)

fuzz: ## let each fuzzer look for FUZZ_SECONDS (60) for input that breaks a parser
	@scripts/install-deps.sh run fuzz
	@$(MAKE) --no-print-directory CC=clang BUILD=build-fuzz CFLAGS="-O1 -g" FUZZ_ENGINE=-fsanitize=fuzzer \
		SANITIZE="-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined" fuzzers
	@scripts/run-fuzzers.sh build-fuzz/tests/fuzz $(FUZZ_SECONDS)
fuzzers: $(FUZZERS)

lint: $(VENV)/.installed ## layers, form, file sizes, shell scripts, and a build by clang
	@MAKE="$(MAKE)" CLANG_FORMAT=$(VENV)/bin/clang-format scripts/lint.sh

format: $(VENV)/.installed ## put the C sources into the house's form
	$(VENV)/bin/clang-format -i $$(find src tests -name '*.c')

# ---- the rest ----------------------------------------------------------------------------------

install: all ## install into PREFIX (/usr/local), below DESTDIR
	install -D -s -m 755 $(BUILD)/apiproxy $(DESTDIR)$(PREFIX)/bin/apiproxy

clean: ## remove what was built (.deps and .venv stay)
	rm -rf $(BUILD) build-asan build-tsan build-clang build-fuzz .reports

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | expand -t 12

-include $(OBJECTS:.o=.d) $(addsuffix .d,$(UNIT_TESTS) $(BENCHMARKS) $(FUZZERS))
