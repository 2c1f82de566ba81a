# apiproxy. `make help` lists what there is.
BUILD ?= build
DEPS ?= .deps
CC ?= gcc
CFLAGS ?= -O2 -g
export PKG_CONFIG_PATH := $(abspath $(DEPS))/lib/pkgconfig:$(PKG_CONFIG_PATH)

PACKAGES = libmicrohttpd libcurl hiredis hiredis_ssl libcjson inih libjwt openssl zlib libbrotlidec libzstd libcrypt
PKG_CFLAGS := $(shell pkg-config --cflags $(PACKAGES) 2>/dev/null)
PKG_LIBS := $(shell pkg-config --libs $(PACKAGES) 2>/dev/null)

WARNINGS = -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla
ALL_CFLAGS = -std=gnu11 -D_GNU_SOURCE -Isrc -I$(BUILD) $(WARNINGS) $(CFLAGS) $(SANITIZE) $(PKG_CFLAGS) -pthread -MMD -MP
LIBS = $(PKG_LIBS) -lm -pthread

SOURCES := $(sort $(wildcard src/*.c src/*/*.c))
OBJECTS := $(SOURCES:%.c=$(BUILD)/%.o)
LIBRARY := $(BUILD)/libapiproxy.a
EMBEDDED := $(sort $(wildcard static/* static/*/* src/*/*.lua)) /usr/share/javascript/chart.js/chart.min.js
UNIT_TESTS := $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%,$(sort $(wildcard tests/unit/test_*.c)))

.PHONY: all run test unit clean help
all: $(BUILD)/apiproxy ## build build/apiproxy

$(BUILD)/apiproxy: $(BUILD)/src/main.o $(LIBRARY)
	$(CC) $(CFLAGS) $(SANITIZE) -o $@ $^ $(LIBS)

# Everything but main, so that a unit test links just what it uses.
$(LIBRARY): $(filter-out $(BUILD)/src/main.o,$(OBJECTS)) $(BUILD)/embedded.o
	rm -f $@ && $(AR) rcs $@ $^

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -c -o $@ $<

# Pages and Lua scripts become part of the binary (src/base/embedded.h).
$(BUILD)/embedded.S: $(EMBEDDED) scripts/embed.sh
	@mkdir -p $(@D)
	scripts/embed.sh $(EMBEDDED) > $@
$(BUILD)/embedded.o: $(BUILD)/embedded.S $(EMBEDDED)
	$(CC) -c -o $@ $<

$(BUILD)/tests/unit/%: tests/unit/%.c $(LIBRARY)
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -o $@ $< $(LIBRARY) -lcmocka $(LIBS)

unit: $(UNIT_TESTS) ## run the unit tests
	@for t in $^; do echo "== $$t"; $$t || exit 1; done

clean: ## remove what was built
	rm -rf $(BUILD)

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort

-include $(OBJECTS:.o=.d)
