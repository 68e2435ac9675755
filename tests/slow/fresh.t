#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# The commands of README.md on fresh machines: minbase chroots of Debian releases, as root and
# as an ordinary user, timed; then in odd surroundings, where it works or one line says what
# to do.  It takes root, debootstrap, a mirror, 12 GiB and hours:
#
#	FRESH_ON="bookworm trixie"	the releases
#	FRESH_CHECK=0			leave out make check
#	FRESH_TESTS=x86/xcomp_perm	TESTS= of make kselftest
#	FRESH_CACHE=DIR			begin with a copy of that cache: no machine is fresh then
#	TMPDIR=DIR			where the chroots are made

set -u
# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"

if [ "$(id -u)" != 0 ] || ! command -v debootstrap >/dev/null 2>&1; then
	plan 1
	skip "the commands of README.md on fresh machines" "it takes root and debootstrap"
	exit 0
fi
scratch
releases=${FRESH_ON:-bookworm trixie}
one=x86/xcomp_perm_64
mirror=$(sed -nE 's/^(deb )?(URIs:)? ?(\[.*\] )?(https?:[^ ]*\/debian)\/?( .*|$)/\4/p' /etc/apt/sources.list \
	/etc/apt/sources.list.d/* 2>/dev/null | head -n 1)
if [ -z "$mirror" ]; then
	plan 1
	skip "the commands of README.md on fresh machines" "this machine names no Debian mirror"
	exit 0
fi

proxy=
# shellcheck disable=SC2317 # called on exit
clean_up()
{
	[ -z "$proxy" ] || kill "$proxy" 2>/dev/null
	# Nothing of the chroots is mounted out here: it was in the name spaces of inside().
	rm -rf --one-file-system "$tmp"
}
trap clean_up EXIT

# inside USER COMMAND [SETUP]: run the command in $root as root or user, with nothing of our
# environment; SETUP runs before, as root, with all that it mounts gone at the end.  $rc,
# $seconds, $tmp/out, $tmp/err
inside()
{
	cat >"$tmp/inside" <<END_OF_SH
set -eu
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
chmod 1777 "$root/tmp"
${3:-}
END_OF_SH
	# shellcheck disable=SC2016 # for that shell
	case $1 in
	root)	printf 'exec chroot "%s" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root sh -c "$1"\n' "$root" ;;
	user)	printf 'exec chroot "%s" setpriv --reuid=1000 --regid=1000 --clear-groups ' "$root"
		printf 'env -i PATH=/usr/bin:/bin HOME=/home/user sh -c "$1"\n' ;;
	esac >>"$tmp/inside"
	_begin=$(date +%s)
	rc=0
	timeout 14400 unshare --mount --pid --fork --kill-child sh "$tmp/inside" "$2" \
		>"$tmp/out" 2>"$tmp/err" </dev/null || rc=$?
	seconds=$(($(date +%s) - _begin))
}

# works NAME: the last command was good
works()
{
	echo "# $1: $seconds s"
	[ "$rc" = 0 ] || tap_diag "$tmp/err"
	is "$1" "$rc" 0
}

# says NAME REGEX: the last command failed, with one line on stderr that says what to do
says()
{
	echo "# $1: $seconds s"
	_lines=$(grep -cv '^make: \*\*\*' "$tmp/err")
	[ "$rc $_lines" = "2 1" ] || tap_diag "$tmp/err"
	is "$1: refused, in one line" "$rc $_lines" "2 1"
	ok "$1: it says what to do" like "$tmp/err" "$2"
}

# suite NAME USER [VARIABLE...] [-- SETUP]: make kselftest in /src
suite()
{
	_name=$1
	_user=$2
	shift 2
	_words=
	while [ $# -gt 0 ] && [ "$1" != -- ]; do
		_words="$_words $1"
		shift
	done
	[ $# = 0 ] || shift
	inside "$_user" "cd /src && make kselftest O=/tmp/out $_words && tail -n 3 /tmp/out/report.ktap" "${1:-}"
	works "$_name"
	if [ "$rc" = 0 ]; then
		ok "$_name: all results came" like "$tmp/out" '^ok [0-9]+ lab_complete$'
	else
		skip "$_name: all results came" "it failed"
	fi
}

# make_root RELEASE: $root, with a fresh clone in /src and a user
make_root()
{
	root=$tmp/$1
	debootstrap --variant=minbase "$1" "$root" "$mirror" >"$tmp/log" 2>&1 || {
		tap_diag "$tmp/log"
		return 1
	}
	# As this machine reaches the archive, and its security suite.
	cp /etc/resolv.conf "$root/etc/"
	cp -R /etc/apt/apt.conf.d/. "$root/etc/apt/apt.conf.d/"
	rm -f "$root"/etc/apt/apt.conf.d/*docker* "$root"/etc/apt/apt.conf.d/50appstream "$root"/etc/apt/apt.conf.d/20packagekit
	echo "deb $mirror-security $1-security main" >>"$root/etc/apt/sources.list"
	git clone -q --no-hardlinks "$TOP" "$root/src"
	mkdir -p "$root/home/user"
	echo 'user:x:1000:1000::/home/user:/bin/sh' >>"$root/etc/passwd"
	chown -R 1000:1000 "$root/home/user"
	chmod -R a+rX "$root/src"
	[ -z "${FRESH_CACHE:-}" ] || copy_cache "$FRESH_CACHE" "$root/root/.cache"
}

# copy_cache FROM TO: what is whole of a cache, the newest of each kind
copy_cache()
{
	mkdir -p "$2/xcomp-lab/tmp" "$2/xcomp-lab/log" "$2/xcomp-lab/lock"
	for _d in index pin bios bochs-up bochs kernel library source headers upstream-gcc selftests-gcc boot modules job; do
		# shellcheck disable=SC2012 # names of our own
		ls -dt "$1/$_d" "$1/$_d"-[0-9a-f]* 2>/dev/null | head -n 3 | while read -r _p; do
			cp -a "$_p" "$2/xcomp-lab/"
		done
	done
}

first=
for release in $releases; do
	make_root "$release" || {
		ok "$release: debootstrap" false
		continue
	}
	first=${first:-$root}
	inside root "apt-get update && apt-get install -y --no-install-recommends make"
	works "$release: make, the one thing that has to be there"
	inside user "cd /src && make kselftest O=/tmp/out"
	ok "$release, user: without the packages it says which" like "$tmp/err" '^lab: missing Debian packages: .*gcc'
	ok "$release, user: and how to get them" like "$tmp/err" '^lab: install them as root: apt-get update && apt-get install'
	suite "$release, root: make kselftest" root "${FRESH_TESTS:+TESTS=$FRESH_TESTS}"
	suite "$release, root: again" root "${FRESH_TESTS:+TESTS=$FRESH_TESTS}"
	if [ "${FRESH_CHECK:-1}" = 1 ]; then
		inside root "cd /src && make check"
		works "$release, root: make check"
	fi
	[ -z "${FRESH_CACHE:-}" ] || {
		copy_cache "$root/root/.cache/xcomp-lab" "$root/home/user/.cache"
		chown -R 1000:1000 "$root/home/user"
	}
	suite "$release, user: make kselftest" user "${FRESH_TESTS:+TESTS=$FRESH_TESTS}"
done

# --- odd surroundings, where the packages are there ---

root=$first
[ -n "$root" ] || {
	plan "$tap_count"
	exit 1
}
ro="mount --bind '$root/src' '$root/src'; mount -o remount,ro,bind '$root/src'"
inside root "cd /src && make kselftest TESTS=$one" "$ro"
says "a read-only checkout" 'Read-only file system: choose another one'
suite "a read-only checkout, with O= elsewhere" root TESTS=$one -- "$ro"

inside root "cp -R /src '/tmp/a b' && cd '/tmp/a b' && make kselftest TESTS=$one"
works "a path with a blank"

suite "a cache on another file system" root TESTS=$one CACHE=/mnt/xcomp-lab -- \
	"mount -t tmpfs tmpfs '$root/mnt'; cp -a '$root/root/.cache/xcomp-lab' '$root/mnt/'; rm -rf '$root'/mnt/xcomp-lab/selftests-*"

inside root "cd /src && make kselftest TESTS=$one CACHE=/mnt" "mount -t tmpfs -o size=2g tmpfs '$root/mnt'"
if [ "$rc" = 0 ]; then
	works "2 GiB for the cache"
else
	ok "2 GiB for the cache: a line says what to do" like "$tmp/err" '^lab: no space left in /mnt: make some'
	is "2 GiB for the cache: that is the last one" "$(grep -v '^make: \*\*\*' "$tmp/err" | tail -n 1 | cut -c 1-18)" "lab: no space left"
fi
inside root "cd /src && make kselftest TESTS=$one O=/mnt" "mount -t tmpfs -o size=1m tmpfs '$root/mnt'"
ok "no room for the results: a line says what to do" like "$tmp/err" \
	'no space left in /mnt: make some, or choose another folder with O='
is "no room for the results: it is no good run" "$rc" 2

# A proxy that notes what is asked of it
cat >"$tmp/proxy.py" <<'END_OF_PY'
import http.server
import shutil
import socketserver
import sys
import urllib.request

OPEN = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Proxy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            with OPEN.open(urllib.request.Request(self.path, headers={"User-Agent": "proxy"}), timeout=60) as answer:
                self.send_response(answer.status)
                for name in ("Content-Length", "Last-Modified", "Content-Type"):
                    if answer.headers.get(name):
                        self.send_header(name, answer.headers[name])
                self.end_headers()
                shutil.copyfileobj(answer, self.wfile)
        except urllib.error.HTTPError as error:
            self.send_error(error.code)

    def log_message(self, *arguments):
        print(self.path, file=sys.stderr, flush=True)


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True


server = Server(("127.0.0.1", 0), Proxy)
print(server.server_port, flush=True)
server.serve_forever()
END_OF_PY
case $mirror in
http:*)
	: >"$tmp/port"
	timeout 3600 python3 "$tmp/proxy.py" >"$tmp/port" 2>"$tmp/asked" &
	proxy=$!
	while [ ! -s "$tmp/port" ] && kill -0 $proxy 2>/dev/null; do
		sleep 0.1
	done
	inside root "cd /src && http_proxy=http://127.0.0.1:$(cat "$tmp/port") CACHE=/tmp/cache lab/kernel/fetch bios"
	works "behind a proxy"
	ok "which was asked" like "$tmp/asked" '/debian/.*bochsbios'
	kill $proxy
	wait $proxy 2>/dev/null
	proxy=
	inside root "cd /src && http_proxy=http://127.0.0.1:9 CACHE=/tmp/cache lab/kernel/fetch bios"
	is "behind a proxy that is not there" "$rc" 1
	ok "the last line says what to do" sh -c "tail -n 1 '$tmp/err' | grep -q '^lab: cannot read the package index of the Debian mirror'" ;;
*)
	skip "behind a proxy" "the mirror is not plain HTTP"
	skip "which was asked" "the mirror is not plain HTTP"
	skip "behind a proxy that is not there" "the mirror is not plain HTTP"
	skip "the last line says what to do" "the mirror is not plain HTTP" ;;
esac
plan "$tap_count"
