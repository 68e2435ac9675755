// SPDX-License-Identifier: GPL-2.0-only
/*
 * The MSRs behind XSAVE, XFD and PASID, and some others, through the msr driver.
 */
#include "cpu_user.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>

#define MSR_XFD_ERR		0x1c5
#define MSR_MISC_ENABLE		0x1a0
#define MSR_DEBUGCTL		0x1d9
#define MSR_PASID		0xd93
#define MSR_XSS			0xda0
#define PASID_MASK		(0xfffffULL | BIT(31))

static int msr_fd;

static __u64 read_msr(__u32 msr)
{
	__u64 value = 0;

	check(pread(msr_fd, &value, 8, msr) == 8, "RDMSR %#x: wanted no fault", msr);
	return value;
}

/* Be on CPU 0, with its MSRs. */
static void setup_msr(int flags)
{
	cpu_set_t set;
	__u32 a, b, c, d;

	read_cpu();
	CPU_ZERO(&set);
	CPU_SET(0, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		skip("cannot run on CPU 0");
	msr_fd = open("/dev/cpu/0/msr", flags);
	if (msr_fd < 0)
		skip("no access to /dev/cpu/0/msr");
	__cpuid(0, a, b, c, d);
	if (b != signature_INTEL_ebx)
		skip("not an Intel CPU");
}

/* Verify that each bit beyond @valid raises #GP and changes nothing. */
static void check_reserved(__u32 msr, __u64 valid)
{
	__u64 old = read_msr(msr), value;
	int bit, wrote;

	for (bit = 0; bit < 64; bit++) {
		if (valid & BIT(bit))
			continue;
		value = old | BIT(bit);
		wrote = pwrite(msr_fd, &value, 8, msr);
		check(wrote < 0 && errno == EIO, "MSR %#x bit %d: wanted #GP", msr, bit);
		if (!check_eq(read_msr(msr), old, "value after #GP") || wrote == 8)
			check(pwrite(msr_fd, &old, 8, msr) == 8, "MSR %#x: not put back", msr);
	}
}

static void setup_msr_write(void)
{
	if (!write_msrs)
		skip("MSRs are written only with -w");
	setup_msr(O_RDWR);
}

/* Verify that XSS has only components that leaf 0xD.1 lists, and gives its EBX. */
static void msr_xss(void)
{
	__u32 a, size, c, d;
	__u64 xss;

	setup_msr(O_RDONLY);
	if (!(cpu.features & HAS_XSAVES))
		skip("no XSAVES");
	xss = read_msr(MSR_XSS);
	check(!(xss & ~cpu.supervisor), "XSS %#llx beyond CPUID %#llx", xss, cpu.supervisor);
	__cpuid_count(0xd, 1, a, size, c, d);
	check_eq(size, compact_offset(cpu.xcr0 | xss, 63), "compacted size");
}

/* Verify that XFD is set for a task that never used AMX, and XFD_ERR is zero. */
static void msr_xfd(void)
{
	setup_msr(O_RDONLY);
	if (!(cpu.features & HAS_XFD))
		skip("no XFD");
	check_eq(read_msr(MSR_XFD), cpu.xcr0 & BIT(TILEDATA), "IA32_XFD");
	check_eq(read_msr(MSR_XFD_ERR), 0, "IA32_XFD_ERR");
}

/* Verify that fast strings are on, as Linux expects of every CPU with them. */
static void msr_misc_enable(void)
{
	setup_msr(O_RDONLY);
	check_eq(read_msr(MSR_MISC_ENABLE) & 1, 1, "IA32_MISC_ENABLE[0]");
}

/* Verify that PASID has no other bits than a PASID and a valid flag. */
static void msr_pasid(void)
{
	__u64 value;

	setup_msr(O_RDONLY);
	if (!(cpu.supervisor & BIT(PASID)))
		skip("no PASID");
	value = read_msr(MSR_PASID);
	check(!(value & ~PASID_MASK), "IA32_PASID: wanted bits 19:0 and 31, got %#llx", value);
}

/* Verify the reserved bits of XFD, XFD_ERR and XSS. */
static void msr_reserved_bits(void)
{
	setup_msr_write();
	if (!(cpu.features & HAS_XFD))
		skip("no XFD");
	check_reserved(MSR_XFD, BIT(TILEDATA));
	check_reserved(MSR_XFD_ERR, BIT(TILEDATA));
	check_reserved(MSR_XSS, cpu.supervisor);
}

/* Verify that XFD_ERR[18] can be set and cleared. */
static void msr_xfd_err(void)
{
	__u64 value = BIT(TILEDATA), zero = 0, got;

	setup_msr_write();
	if (!(cpu.features & HAS_XFD))
		skip("no XFD");
	check(pwrite(msr_fd, &value, 8, MSR_XFD_ERR) == 8, "XFD_ERR[18]: wanted no #GP");
	got = read_msr(MSR_XFD_ERR);
	check(pwrite(msr_fd, &zero, 8, MSR_XFD_ERR) == 8, "XFD_ERR 0: wanted no #GP");
	check_eq(got, value, "XFD_ERR");
	check_eq(read_msr(MSR_XFD_ERR), 0, "XFD_ERR put back");
}

/* Verify which bits of PASID can be written, without making it valid for long. */
static void msr_pasid_bits(void)
{
	static const __u64 values[] = { 0xfffff, BIT(31) | 0x12345, 0 };
	__u32 i;

	setup_msr_write();
	if (!(cpu.supervisor & BIT(PASID)))
		skip("no PASID");
	if (read_msr(MSR_PASID))
		skip("a PASID is in use");
	check_reserved(MSR_PASID, PASID_MASK);
	for (i = 0; i < ARRAY_SIZE(values); i++) {
		check(pwrite(msr_fd, &values[i], 8, MSR_PASID) == 8,
		      "IA32_PASID %#llx: wanted no #GP", values[i]);
		check_eq(read_msr(MSR_PASID), values[i], "IA32_PASID");
	}
}

/* Verify that DEBUGCTL keeps BTF, and has no more than 16 bits. */
static void msr_debugctl(void)
{
	__u64 old, value;

	setup_msr_write();
	old = read_msr(MSR_DEBUGCTL);
	check_reserved(MSR_DEBUGCTL, 0xffff);
	value = old ^ BIT(1);
	check(pwrite(msr_fd, &value, 8, MSR_DEBUGCTL) == 8, "BTF: wanted no #GP");
	check_eq(read_msr(MSR_DEBUGCTL), value, "IA32_DEBUGCTL");
	check(pwrite(msr_fd, &old, 8, MSR_DEBUGCTL) == 8, "IA32_DEBUGCTL: not put back");
	check_eq(read_msr(MSR_DEBUGCTL), old, "IA32_DEBUGCTL put back");
}

/* Verify that AMD's CPUs have no SYSENTER in long mode: it would jump to 32 bits of an address. */
static void amd_sysenter(void)
{
	__u32 a, b, c, d;

	catch_faults();
	__cpuid(0, a, b, c, d);
	if (b != signature_AMD_ebx)
		skip("not an AMD CPU");
	TRY("sysenter", "r" (0));
	check_eq(fault.vector, UD_VECTOR, "vector of SYSENTER");
}

static const struct cpu_test msr_tests_list[] = {
	{ "msr_xss", "Intel SDM vol. 1, Enabling the XSAVE Feature Set and XSAVE-Enabled Features",
	  msr_xss },
	{ "msr_xfd", "Intel SDM vol. 1, Extended Feature Disable (XFD)", msr_xfd },
	{ "msr_misc_enable", "Intel SDM vol. 4, IA32_MISC_ENABLE", msr_misc_enable },
	{ "msr_pasid", "Intel SDM vol. 4, IA32_PASID", msr_pasid },
	{ "msr_reserved_bits", "Intel SDM vol. 4, IA32_XFD, IA32_XFD_ERR, IA32_XSS",
	  msr_reserved_bits },
	{ "msr_xfd_err", "Intel SDM vol. 1, Extended Feature Disable (XFD)", msr_xfd_err },
	{ "msr_pasid_bits", "Intel SDM vol. 4, IA32_PASID", msr_pasid_bits },
	{ "msr_debugctl", "Intel SDM vol. 4, IA32_DEBUGCTL", msr_debugctl },
	{ "amd_sysenter", "AMD APM vol. 3, SYSENTER", amd_sysenter },
};

TEST_GROUP(msr_tests);
