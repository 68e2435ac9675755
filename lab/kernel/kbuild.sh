# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh
#
# Building a kernel with the lab's configuration, $src in the folder $obj, with $more with
# that of $more.config on top of it.
# Sourced after lab/lib.sh; $lab_log gets what make says.

# shellcheck disable=SC2154 # src, obj, more and lab_log are of the script that sources this file

need gcc gcc
need make make
need bc bc
need flex flex
need bison bison
need cpio cpio
[ -e /usr/include/gelf.h ] || die "gelf.h is missing: install the Debian package libelf-dev (lab/kernel/packages kernel)"

# kbuild SECONDS WHAT ARGUMENT...
# Nothing of this machine or moment goes into the kernel.
kbuild()
{
	_s=$1
	_w=$2
	shift 2
	logged "$_s" "$_w" make -s -C "$src" O="$obj" ARCH=x86_64 -j"$(nproc)" \
		KBUILD_BUILD_USER=lab KBUILD_BUILD_HOST=lab KBUILD_BUILD_TIMESTAMP=1970-01-01 \
		KBUILD_BUILD_VERSION=1 LOCALVERSION="${more:+-$more}" "$@"
}

# configure WHAT: the options that the kernel did not take go to $dropped
configure()
{
	# What may be dropped is at the end of kernel.config.
	cat ${more:+"$TOP/lab/kernel/$more.config"} "$TOP/lab/kernel/kernel.config" >"$obj/all.config"
	kbuild 300 "configuring $1" KCONFIG_ALLCONFIG="$obj/all.config" allnoconfig
	# shellcheck disable=SC2034 # for the script that sources this file
	dropped=$(sed -n '/^# Only where/q; /^CONFIG/p' "$obj/all.config" |
		grep -vxFf "$obj/.config" | tr '\n' ' ') || :
}

# compile WHAT IMAGE: IMAGE is bzImage or vmlinux, which takes less
compile()
{
	kbuild 7200 "$1" "$2" modules
}

# take_out IMAGE FOLDER: vmlinuz or vmlinux, modules/, version, config, as of
# lab/kernel/fetch kernel
take_out()
{
	case $1 in
	vmlinux)	cp "$obj/vmlinux" "$2/vmlinux" ;;
	bzImage)	cp "$obj/arch/x86/boot/bzImage" "$2/vmlinuz" ;;
	esac
	cp "$obj/.config" "$2/config"
	cp "$obj/include/config/kernel.release" "$2/version"
	mkdir -p "$2/modules/kernel"
	(cd "$obj" && find . -name '*.ko' | cpio -pdm --quiet "$2/modules/kernel")
}
