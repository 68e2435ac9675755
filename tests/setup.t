#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Fetching and installing: what is fetched stays as it was signed for, a second
# run needs no network, failures and bad input get one clear line.

set -u
# shellcheck source=tests/tap.sh
. "$(dirname "$0")/tap.sh"

plan 84
scratch
CACHE=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/xcomp-lab}
export CACHE

# try COMMAND...: $rc, $tmp/out, $tmp/err
try()
{
	rc=0
	"$@" >"$tmp/out" 2>"$tmp/err" </dev/null || rc=$?
}

# refuses NAME REGEX COMMAND...: one line on stderr like REGEX, nothing on stdout
refuses()
{
	_name=$1
	_regex=$2
	shift 2
	try "$@"
	is "$_name: refused, in one line" "$rc $(wc -l <"$tmp/err") $(wc -c <"$tmp/out")" "1 1 0"
	ok "$_name: the line says what to do" like "$tmp/err" "$_regex"
}

# --- bad input ---

refuses "no such series" '^lab: Debian has no cloud kernel of the series 5\.9: there are 6\.1 .*7\.3' \
	lab/kernel/fetch kernel 5.9
refuses "a word for a series" "^lab: 'latest' is no kernel series: 7\.3, 6\.12 and newest are" \
	lab/kernel/fetch kernel latest
refuses "no such version" "^lab: Debian's archive has no cloud kernel 6\.12\.999: there are .*6\.12\." \
	lab/kernel/fetch kernel 6.12.999
refuses "no version" "^lab: '6\.12\.1\.2' is no kernel version: 6\.18\.5 and" lab/kernel/fetch kernel 6.12.1.2
refuses "no series" '^lab: use: lab/kernel/fetch kernel SERIES' lab/kernel/fetch kernel
refuses "an unknown thing" '^lab: use: lab/kernel/fetch' lab/kernel/fetch emulator
refuses "an unknown package group" "^lab: no package group 'all': there are fetch build" lab/kernel/packages all
refuses "no kernel tree" "^lab: '$tmp' is no kernel tree with KVM selftests: give the root of one" \
	lab/selftests/build "$tmp"
mkdir -p "$tmp/old/tools/testing/selftests/kvm"
: >"$tmp/old/tools/testing/selftests/kvm/Makefile"
refuses "an old kernel tree" '^lab: the selftests library in .* is too old: give a tree of 6\.12 or newer' \
	lab/selftests/build "$tmp/old"
refuses "no such patch" '^lab: cannot read the patch .*/none' lab/kernel/build "$newest" "$tmp/none"
refuses "no such configuration" '^lab: -c none: there is no lab/kernel/none\.config: take one' \
	lab/kernel/build -c none "$newest"

# The same of lab/run, before anything is fetched, built or started.
box=$(command -v busybox)
refuses "nothing to run" '^lab: nothing to run: name a program or a list' lab/run -o "$tmp/run"
refuses "no list" "^lab: cannot read the list $tmp/none" lab/run -o "$tmp/run" -l "$tmp/none"
echo "name $box" >"$tmp/list"
refuses "half a line" "^lab: $tmp/list: 'name $box': a line is NAME SECONDS FILE" lab/run -o "$tmp/run" -l "$tmp/list"
refuses "no program" "^lab: no program $tmp/none: build it first" lab/run -o "$tmp/run" "$tmp/none"
refuses "no number" "^lab: argument -M: 'x' is no number above 0; lab/run -h" lab/run -o "$tmp/run" -M x "$box"
refuses "little memory" '^lab: -M 100: the host needs at least 256 MiB' lab/run -o "$tmp/run" -M 100 "$box"
refuses "no such CPU" "^lab: no CPU 'z80': there are spr, spr-smp" lab/run -o "$tmp/run" -c z80 "$box"
refuses "no such option" '^lab: .*--none; lab/run -h lists the options' lab/run --none "$box"
refuses "no such file" "^lab: no file $tmp/none to copy into the host" lab/run -o "$tmp/run" -f "$tmp/none" "$box"
ok "lab/run -h tells of every option" sh -c 'lab/run -h | grep -q -e --seed'

# --- packages ---

# The same script with a package that nobody has, run by somebody else.
mkdir -p "$tmp/repo/lab/kernel" "$tmp/nobody"
cp lab/lib.sh "$tmp/repo/lab/"
sed 's/bison:bison/bison:no-such-command/' lab/kernel/packages >"$tmp/repo/lab/kernel/packages"
chmod -R a+rX "$tmp"
chmod 755 "$tmp/repo/lab/kernel/packages"
chmod 777 "$tmp/nobody"
if [ "$(id -u)" = 0 ]; then
	try setpriv --reuid=65534 --regid=65534 --clear-groups env CACHE="$tmp/nobody/cache" \
		"$tmp/repo/lab/kernel/packages" build
else
	try env CACHE="$tmp/nobody/cache" "$tmp/repo/lab/kernel/packages" build
fi
is "without root nothing is installed" "$rc" 1
ok "what is missing is named" like "$tmp/err" '^lab: missing Debian packages: bison$'
ok "with the command to type" like "$tmp/err" 'apt-get install -y --no-install-recommends bison$'

# --- the network is not needed twice ---

ok "the kernel is fetched" lab/kernel/fetch kernel newest
mkdir "$tmp/bin"
for c in apt-get apt-cache apt-config dpkg-deb; do
	# shellcheck disable=SC2016 # for the script to expand
	printf '#!/bin/sh\necho "$0 $*" >>%s/called\nexit 1\n' "$tmp" >"$tmp/bin/$c"
done
chmod +x "$tmp"/bin/*
try env PATH="$tmp/bin:$PATH" lab/kernel/fetch kernel newest
is "a second time it is only named" "$rc $([ -f "$(cat "$tmp/out")/vmlinuz" ] && echo there)" "0 there"
nok "without apt" [ -e "$tmp/called" ]
kernel=$(cat "$tmp/out")
ok "it has modules" [ -d "$kernel/modules/kernel/arch/x86/kvm" ]
is "it knows its release" "$(sed -n 2p "$CACHE/pin/kernel-newest" | cut -d ' ' -f 1)" \
	"linux-image-$(cat "$kernel/version")"
ok "and its configuration" like "$kernel/config" '^CONFIG_KVM_INTEL=m$'

# --- failures of the network, and of those who answer in its place ---

# apt_answers: an apt-get that finds a mirror in $tmp/mirror, and else is itself
real=$(command -v apt-get)
cat >"$tmp/bin/apt-get" <<END
#!/bin/sh
case \$1 in
indextargets)
	for r in trixie trixie-security; do
		echo "Packages main \$r file:$tmp/mirror"
	done ;;
*)	exec $real "\$@" ;;
esac
END
rm "$tmp/bin/apt-cache" "$tmp/bin/apt-config" "$tmp/bin/dpkg-deb"
for s in bookworm trixie trixie-backports forky sid bookworm-security trixie-security; do
	mkdir -p "$tmp/mirror/dists/$s/main/binary-amd64"
	: >"$tmp/mirror/dists/$s/main/binary-amd64/Packages"
	printf 'Origin: Debian\nSuite: %s\nCodename: %s\nComponents: main\nArchitectures: amd64\n' \
		"$s" "$s" >"$tmp/mirror/dists/$s/Release"
done
chmod -R a+rX "$tmp"
index=$CACHE/index
export CACHE="$tmp/cache"
try env PATH="$tmp/bin:$PATH" lab/kernel/fetch kernel newest
is "an index without a signature is refused" "$rc" 1
ok "with the reason" like "$tmp/err" "^E: The repository .* is not signed"
ok "and a clear line" like "$tmp/err" '^lab: cannot read the package index of the Debian mirror file:'
is "nothing of it is kept" "$(find "$CACHE" -mindepth 1 ! -name lock ! -path '*/lock/*' ! -name log \
	! -path '*/log/*' ! -name tmp)" ""

# The real index, but a proxy that answers with something else.
cat >"$tmp/proxy.py" <<'END'
import http.server
import sys

class Proxy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"not the file that was asked for"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) + int(sys.argv[1])))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass

server = http.server.HTTPServer(("127.0.0.1", 0), Proxy)
print(server.server_port, flush=True)
server.serve_forever()
END

# through_proxy MISSING: fetch with a body that lacks MISSING bytes
through_proxy()
{
	rm -rf "$CACHE"
	mkdir -p "$CACHE"
	cp -a "$index" "$CACHE/index"
	: >"$tmp/port"
	timeout 120 python3 "$tmp/proxy.py" "$1" >"$tmp/port" &
	_proxy=$!
	while [ ! -s "$tmp/port" ] && kill -0 $_proxy 2>/dev/null; do
		sleep 0.1
	done
	sed -i "s|$index|$CACHE/index|; /Proxy/d" "$CACHE/index/apt.conf"
	echo "Acquire::http::Proxy \"http://127.0.0.1:$(cat "$tmp/port")\";" >>"$CACHE/index/apt.conf"
	try lab/kernel/fetch bios
	kill $_proxy
	wait $_proxy 2>/dev/null
}

things()
{
	find "$CACHE" -maxdepth 1 -name 'bios-*'
	find "$CACHE/tmp" -mindepth 1
}

mkdir "$tmp/moved"
cp -a "$index" "$tmp/moved/index"
ok "an index that was moved is taken" env CACHE="$tmp/moved" lab/kernel/fetch bios
is "and no longer looks where it was" "$(grep -c "$index" "$tmp/moved/index/apt.conf")" 0

if grep -q '^deb .*http:' "$index/sources.list"; then
	through_proxy 0
	is "a file that is not the one of the index is refused" "$rc$(things)" 1
	ok "for its hash or size" like "$(ls "$CACHE"/log/bios-*.log)" 'mismatch|unexpected size'
	ok "with a clear line" like "$tmp/err" '^lab: cannot fetch bochsbios .*see .*make update'
	through_proxy 1000
	is "half a file is refused" "$rc$(things)" 1
else
	for n in "a file that is not the one of the index is refused" "for its hash or size" \
		"with a clear line" "half a file is refused"; do
		skip "$n" "the mirror is not plain HTTP"
	done
fi

# --- make ---

export CACHE="$tmp/cache"
rm -rf "$CACHE"
refuses "KERNEL=" "^lab: KERNEL='x': give a Debian version series such as 7\.3, an exact version .*, faults, or" \
	env KERNEL=x lab/kselftest
refuses "KERNEL= as a path" "^lab: KERNEL='$tmp/none': no such file" env KERNEL="$tmp/none" lab/kselftest
refuses "HOST=" "^lab: HOST='yes': HOST=1 runs on this machine" env HOST=yes lab/kselftest
refuses "CPU= with HOST=1" '^lab: CPU=.*leave them out with HOST=1' env HOST=1 CPU=spr lab/kselftest
refuses "JOBS=" "^lab: JOBS='x' is no number above 0" env JOBS=x lab/kselftest
refuses "SEED=" "^lab: SEED='0' is no number above 0" env SEED=0 lab/kselftest
refuses "FAILED=" "^lab: FAILED='yes': FAILED=1 runs again what failed last time" env FAILED=yes lab/kselftest
refuses "FAILED=1 without a run" "^lab: FAILED=1: there was no run in $tmp/none: run 'make kselftest' first" \
	env FAILED=1 O="$tmp/none" lab/kselftest
refuses "FAILED=1 and TESTS=" '^lab: FAILED=1 knows what to run: leave out TESTS=' env FAILED=1 TESTS=x lab/kselftest
refuses "install without DESTDIR" '^lab: where to\? say make install DESTDIR=' lab/kselftest install ''

for t in all kselftest list check check-slow install bisect series runner matrix report soak mutants detection update clean distclean help; do
	[ "$t" = all ] || make -s help | grep -q "^make $t" || echo "$t"
done >"$tmp/out"
is "make help lists every target" "$(cat "$tmp/out")" ""

mkdir -p "$CACHE/kernel-1" "$CACHE/lock" "$CACHE/pin" "$CACHE/warm/1" "$tmp/out.d/boot" "$tmp/out.d/jobs/000-a" \
	"$tmp/out.d/mutants/ours/m" "$tmp/out.d/mutants/kernels/labkernel-1" "$tmp/out.d/matrix/c" "$tmp/out.d/soak/1"
touch "$tmp/out.d/mutants/ours/setup.json" "$tmp/out.d/matrix/setup.json" "$tmp/out.d/soak/list"
touch "$CACHE/lock/kernel-1" "$CACHE/notes" "$CACHE/times" "$tmp/out.d/notes" "$tmp/out.d/results.log" \
	"$tmp/out.d/run.json" "$tmp/out.d/report.json" "$tmp/out.d/report.xml" "$tmp/out.d/report.html" "$tmp/out.d/.lock" "$tmp/out.d/boot/console.log" "$tmp/out.d/jobs/000-a/console.log"
sh -c 'while :; do sleep 0.1; done' sh "$CACHE/warm/1/bochsrc" &
waits=$!
echo $waits >"$CACHE/warm/1/pid"
ok "distclean" make -s distclean O="$tmp/out.d" CACHE="$CACHE"
nok "it ends machines that wait" kill $waits
is "it removes what the lab made and nothing else" \
	"$(cd "$tmp" && find cache out.d -mindepth 1 | sort | tr '\n' ' ')" "cache/notes out.d/notes "
