#!/bin/sh
# Installs what apiproxy needs on Debian 12, 13 and Ubuntu 24.04; says nothing where nothing is missing.
#
#   scripts/install-deps.sh [run] [test] [bench] [fuzz]
#
# run    what builds it and what it runs with (the default)
# test   what `make test` needs besides
# bench  what `make bench` needs besides
# fuzz   what `make fuzz` needs besides
#
# Packages come from the system's own package sources, as root or through sudo. A service that a
# package brings along (redis-server, nginx ...) is not started and not enabled, unless it was there
# before. Where the system's libmicrohttpd or hiredis is too old (Debian 12), Debian 13's source
# package of it (on Ubuntu: 26.04's) is fetched from the system's own mirror, with an apt
# configuration of its own and checked against the archive's keyring, and becomes a static library in
# DEPS (default: .deps), once. The system's package sources are never touched.
#
# Environment: DEPS, CC, DEBIAN_MIRROR (where the system's sources name no mirror that will do).
set -eu

DEPS=${DEPS:-.deps}
CC=${CC:-gcc}
SELF=$(cd "$(dirname "$0")" && pwd)/$(basename "$0")

# Where sources come from: release, its name in a package archive, the archive's parts, keyring and its package.
# Ubuntu's archive has no Debian 13; the next long-term release serves there.
# shellcheck source=/dev/null
SYSTEM=$(. /etc/os-release && printf '%s' "$ID")
# shellcheck source=/dev/null
CODENAME=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
if [ "$SYSTEM" = ubuntu ] && [ -z "${DEBIAN_MIRROR:-}" ]; then
	SOURCE_RELEASE="Ubuntu 26.04" SOURCE_SUITE=resolute SOURCE_PARTS="main universe"
	KEYRING=/usr/share/keyrings/ubuntu-archive-keyring.gpg KEYRING_PACKAGE=ubuntu-keyring
else
	SOURCE_RELEASE="Debian 13" SOURCE_SUITE=trixie SOURCE_PARTS=main
	KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg KEYRING_PACKAGE=debian-archive-keyring
fi

# library | what pkg-config must know | lowest version | Debian's -dev package
LIBRARIES="\
libmicrohttpd|libmicrohttpd|1.0.1|libmicrohttpd-dev
hiredis|hiredis hiredis_ssl|1.0.0|libhiredis-dev"

RUN_PACKAGES="gcc libc6-dev make pkg-config ca-certificates redis-server uacme libjs-chart.js
	libcurl4-openssl-dev libssl-dev libcjson-dev libinih-dev libjwt-dev libcrypt-dev
	zlib1g-dev libbrotli-dev libzstd-dev"
TEST_PACKAGES="python3 python3-venv libcmocka-dev clang shellcheck openssl curl
	prometheus procps faketime"
[ "$SYSTEM" = ubuntu ] || TEST_PACKAGES="$TEST_PACKAGES chromium pebble" # a snap there; Playwright brings its own
BENCH_PACKAGES="python3 nginx-light haproxy wrk procps"
SOURCE_PACKAGES="dpkg-dev xz-utils patch"
SERVICES="redis-server nginx haproxy prometheus"

say() { printf 'install-deps: %s\n' "$*"; }
die() {
	printf 'install-deps: %s\n' "$*" >&2
	exit 1
}

# ---- packages of the system --------------------------------------------------------------------

# Prints those of the packages given that are not installed.
missing_packages() {
	for package in "$@"; do
		status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || status=
		[ "$status" = installed ] || printf '%s ' "$package"
	done
}

# The version apt would install, or nothing.
candidate_version() {
	apt-cache policy "$1" 2>/dev/null | sed -n 's/^  Candidate: //p' | grep -v '(none)' || true
}

# libFuzzer and the sanitizers for the system's clang: libclang-rt-14-dev, say.
fuzzer_package() {
	apt-cache depends clang 2>/dev/null | sed -n 's/.*Depends: clang-\([0-9][0-9]*\)$/libclang-rt-\1-dev/p' | head -n 1
}

unit_exists() {
	for dir in /etc/systemd/system /lib/systemd/system /etc/init.d; do
		if [ -e "$dir/$1.service" ] || [ -e "$dir/$1" ]; then return 0; fi
	done
	return 1
}

# Runs as root. While the packages are set up, a policy keeps the services that they bring from
# starting; a policy that is there already is left alone.
install_as_root() {
	export DEBIAN_FRONTEND=noninteractive
	policy=/usr/sbin/policy-rc.d
	new_services=
	denied=none
	for service in $SERVICES; do
		unit_exists "$service" && continue
		new_services="$new_services $service"
		denied="$denied|$service|$service.service"
	done
	if [ -e "$policy" ]; then
		policy=
	else
		# shellcheck disable=SC2016 # it is for the policy to expand
		printf '#!/bin/sh\ncase $1 in %s) exit 101 ;; esac\nexit 0\n' "$denied" >"$policy"
		chmod 755 "$policy"
		trap 'rm -f "$policy"' EXIT
		trap 'exit 130' INT TERM HUP
	fi
	apt-get -o DPkg::Lock::Timeout=300 update -q
	[ $# -gt 0 ] || return 0
	apt-get -o DPkg::Lock::Timeout=300 install -q -y --no-install-recommends "$@" || return 1
	for service in $new_services; do
		unit_exists "$service" || continue
		say "$service is installed, and its system service left off (systemctl enable --now $service)"
		update-rc.d "$service" disable >/dev/null 2>&1 || true
		if [ -d /run/systemd/system ]; then systemctl stop "$service" || true; fi
	done
}

# Without packages: only brings the package lists up to date.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		sh "$SELF" --as-root "$@"
	elif command -v sudo >/dev/null; then
		sudo sh "$SELF" --as-root "$@"
	else
		die "packages are missing, and there is neither root nor sudo here. As root:
  apt-get update && apt-get install --no-install-recommends $*"
	fi || die "the packages could not be installed (apt's own words are above)"
}

install_packages() {
	[ -n "$*" ] || return 0
	say "installing: $*"
	as_root "$@"
}

# ---- libraries that the system has too old -----------------------------------------------------

# Is the library there, on the system or in DEPS?
library_found() {
	PKG_CONFIG_PATH="$DEPS/lib/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}"
	export PKG_CONFIG_PATH
	for module in $1; do
		pkg-config --exists "$module >= $2" 2>/dev/null || return 1
	done
}

# Prints the libraries that are missing.
missing_libraries() {
	printf '%s\n' "$LIBRARIES" | while IFS='|' read -r name modules version package; do
		(library_found "$modules" "$version") || printf '%s\n' "$name|$modules|$version|$package"
	done
}

# Prints the mirrors that the system's own sources name for its release.
mirrors_of_system() {
	if [ -n "${DEBIAN_MIRROR:-}" ]; then
		printf '%s\n' "$DEBIAN_MIRROR"
	else
		apt-get update --print-uris | sed -n "s|^'\(.*\)/dists/$CODENAME/InRelease' .*|\1|p" | awk '!seen[$0]++'
	fi
}

# apt checks the index against the keyring, and the files against the index.
download_sources() {
	(
		cd "$1"
		shift
		export APT_CONFIG="$PWD/apt.conf"
		apt-get update -q --error-on=any && apt-get source -q --download-only "$@" || exit 1
		for name in "$@"; do
			dpkg-source --no-check -x "$name"_*.dsc "$name" || exit 1
		done
	)
}

# Leaves Debian's source packages of what is named in the folder given, unpacked. apt has sources, lists
# and a cache of its own there; of the system's configuration it takes over how to reach a mirror.
fetch_sources() {
	work=$1
	shift
	mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial"
	{
		apt-config dump | grep '^Acquire::' | grep -v -e IndexTargets -e Languages || true
		printf 'Dir::Etc::main "/dev/null";\nDir::Etc::parts "/dev/null";\n'
		printf 'Dir::Etc::sourcelist "%s/sources.list";\nDir::Etc::sourceparts "/dev/null";\n' "$work"
		printf 'Dir::Etc::trusted "/dev/null";\nDir::Etc::trustedparts "/dev/null";\n'
		printf 'Dir::State "%s/state";\nDir::State::Lists "%s/state/lists";\n' "$work" "$work"
		printf 'Dir::State::status "/var/lib/dpkg/status";\nDir::Cache "%s/cache";\n' "$work"
		printf 'Acquire::Languages "none";\n'
		if [ "$(id -u)" = 0 ]; then printf 'APT::Sandbox::User "root";\n'; fi
	} >"$work/apt.conf"
	: >"$DEPS/log/fetch.log"
	for mirror in $(mirrors_of_system); do
		say "fetching the sources of $* ($SOURCE_RELEASE) from $mirror"
		printf 'deb-src [signed-by=%s] %s %s %s\n' "$KEYRING" "$mirror" "$SOURCE_SUITE" "$SOURCE_PARTS" >"$work/sources.list"
		if download_sources "$work" "$@" >>"$DEPS/log/fetch.log" 2>&1; then return 0; fi
	done
	cat "$DEPS/log/fetch.log" >&2
	die "the sources of $* are not to be had: no mirror with $SOURCE_RELEASE ($SOURCE_SUITE) among the
  system's package sources. Name a mirror of Debian: DEBIAN_MIRROR=http://MIRROR/debian $0"
}

# Makes a .pc file relative, so that DEPS may be moved or linked to. It is there last: what it names is whole.
relocate() {
	for file in "$@"; do
		# shellcheck disable=SC2016 # pkg-config expands it
		sed -i 's|^prefix *=.*|prefix=${pcfiledir}/../..|; s|^libdir *=.*|libdir=${prefix}/lib|
			s|^includedir *=.*|includedir=${prefix}/include|
			s|^pkgincludedir *=.*|pkgincludedir=${includedir}/hiredis|' "$file"
	done
}

# Each build_NAME runs in the source's folder and installs below $DEPS.

# Only plain HTTP behind a socketpair is asked of it, so TLS and all that is not the library stays out.
build_libmicrohttpd() {
	./configure --prefix="$DEPS" --libdir="$DEPS/lib" --disable-shared --enable-static --with-pic \
		--disable-https --disable-doc --disable-examples --disable-tools --disable-curl \
		--disable-bauth --disable-dauth --disable-dependency-tracking --disable-nls CC="$CC" CFLAGS="-O2 -g"
	make -j"$(nproc)" -C src/include install
	make -j"$(nproc)" -C src/microhttpd install
	make install-pkgconfigDATA
	relocate "$DEPS/lib/pkgconfig/libmicrohttpd.pc"
}

build_hiredis() {
	make -j"$(nproc)" static hiredis.pc hiredis_ssl.pc USE_SSL=1 PREFIX="$DEPS" CC="$CC" \
		OPTIMIZATION="-O2 -fPIC"
	mkdir -p "$DEPS/include/hiredis/adapters" "$DEPS/lib/pkgconfig"
	cp ./*.h "$DEPS/include/hiredis/"
	cp adapters/*.h "$DEPS/include/hiredis/adapters/"
	cp libhiredis.a libhiredis_ssl.a "$DEPS/lib/"
	cp hiredis.pc hiredis_ssl.pc "$DEPS/lib/pkgconfig/"
	relocate "$DEPS/lib/pkgconfig/hiredis.pc" "$DEPS/lib/pkgconfig/hiredis_ssl.pc"
}

build_libraries() {
	mkdir -p "$DEPS/log"
	work=$(mktemp -d "$DEPS/src.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	trap 'exit 130' INT TERM HUP
	fetch_sources "$work" "$@"
	for name in "$@"; do
		log=$DEPS/log/$name.log
		say "building $name in $DEPS (log: $log)"
		(cd "$work/$name" && DEPS=$DEPS CC=$CC exec sh -x "$SELF" --build "$name") >"$log" 2>&1 || {
			tail -n 20 "$log" >&2
			die "building $name failed; the whole log is $log"
		}
	done
	rm -rf "$work"
	trap - EXIT INT TERM HUP
}

# What is missing comes from the system where that is new enough, else from source.
provide_libraries() {
	wanted=$(missing_libraries)
	[ -n "$wanted" ] || return 0
	from_system=
	from_source=
	[ -n "$(candidate_version libmicrohttpd-dev)" ] || as_root
	while IFS='|' read -r name _ version package; do
		candidate=$(candidate_version "$package")
		if [ -n "$candidate" ] && dpkg --compare-versions "${candidate#*:}" ge "$version"; then
			from_system="$from_system $package"
		else
			from_source="$from_source $name"
		fi
	done <<-END
		$wanted
	END
	# shellcheck disable=SC2086 # lists of words
	install_packages $from_system
	[ -n "$from_source" ] || return 0
	sources=$SOURCE_PACKAGES
	[ -e "$KEYRING" ] || sources="$sources $KEYRING_PACKAGE"
	# shellcheck disable=SC2046,SC2086
	install_packages $(missing_packages $sources)
	mkdir -p "$DEPS"
	DEPS=$(cd "$DEPS" && pwd)
	# shellcheck disable=SC2086
	build_libraries $from_source
	wanted=$(missing_libraries)
	[ -z "$wanted" ] || die "still missing or too old: ${wanted%%|*}"
}

# ---- what to do --------------------------------------------------------------------------------

if [ "${1:-}" = --as-root ]; then
	shift
	install_as_root "$@"
	exit
fi
if [ "${1:-}" = --build ]; then
	"build_$2"
	exit
fi

packages=$RUN_PACKAGES
for group in "$@"; do
	case $group in
	run) ;;
	test) packages="$packages $TEST_PACKAGES" ;;
	bench) packages="$packages $BENCH_PACKAGES" ;;
	fuzz) packages="$packages clang $(fuzzer_package)" ;;
	*) die "unknown group \"$group\"; there are run, test, bench and fuzz" ;;
	esac
done
command -v dpkg-query >/dev/null || die "this works on Debian and Ubuntu; elsewhere install what README.md lists"
# shellcheck disable=SC2046,SC2086
install_packages $(missing_packages $packages)
if command -v flock >/dev/null && [ -n "$(missing_libraries)" ]; then
	mkdir -p "$DEPS"
	exec 9>"$DEPS/.lock"
	flock 9
fi
provide_libraries
