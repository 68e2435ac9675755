// SPDX-License-Identifier: GPL-2.0-only
/* XSAVE state components and the machine that has them, see xfeature.h. */
#define _GNU_SOURCE

#include <sys/utsname.h>

#include "xfeature.h"

#define CPUID_1_ECX_OSXSAVE	XF_BIT(27)
#define CPUID_D_N_ECX_ALIGN	XF_BIT(1)
#define TAINT_WARN		XF_BIT(9)

/* ---- CPUID leaf 0xD ---- */

INTEGER_ONLY struct xf_regs xf_cpuid(uint32_t leaf, uint32_t subleaf)
{
	struct xf_regs r;

	asm volatile("cpuid"
		     : "=a" (r.eax), "=b" (r.ebx), "=c" (r.ecx), "=d" (r.edx)
		     : "0" (leaf), "2" (subleaf));
	return r;
}

uint64_t xf_xcr0(void)
{
	uint32_t lo, hi;

	if (!(xf_cpuid(1, 0).ecx & CPUID_1_ECX_OSXSAVE))
		return 0;

	asm volatile("xgetbv" : "=a" (lo), "=d" (hi) : "c" (0));
	return (uint64_t)hi << 32 | lo;
}

uint64_t xf_cpu_user_mask(void)
{
	struct xf_regs r = xf_cpuid(0xd, 0);

	return (uint64_t)r.edx << 32 | r.eax;
}

uint64_t xf_cpu_supervisor_mask(void)
{
	struct xf_regs r = xf_cpuid(0xd, 1);

	return (uint64_t)r.edx << 32 | r.ecx;
}

uint32_t xf_standard_size(uint64_t mask)
{
	uint32_t size = XF_BASE_SIZE;
	struct xf_regs r;
	int i;

	for (i = 2; i < 63; i++) {
		if (!(mask & XF_BIT(i)))
			continue;
		r = xf_cpuid(0xd, i);
		if (r.ebx + r.eax > size)
			size = r.ebx + r.eax;
	}
	return size;
}

uint32_t xf_compacted_offset(uint64_t mask, int nr)
{
	uint32_t offset = XF_BASE_SIZE;
	struct xf_regs r;
	int i;

	for (i = 2; i < 63; i++) {
		if (!(mask & XF_BIT(i)) && i != nr)
			continue;
		r = xf_cpuid(0xd, i);
		if (r.ecx & CPUID_D_N_ECX_ALIGN)
			offset = (offset + 63) & ~63u;
		if (i == nr)
			break;
		offset += r.eax;
	}
	return offset;
}

uint32_t xf_compacted_size(uint64_t mask)
{
	int i;

	for (i = 62; i >= 2; i--)
		if (mask & XF_BIT(i))
			return xf_compacted_offset(mask, i) + xf_cpuid(0xd, i).eax;
	return XF_BASE_SIZE;
}

/* ---- permissions ---- */

uint64_t xf_permitted(bool granted)
{
	/* Without XSAVE there are no components to permit, not even the two of FXSAVE. */
	return granted ? xf_xcr0() : xf_xcr0() & ~XFEATURE_MASK_XTILE_DATA;
}

int xf_request(int option, unsigned long nr)
{
	return syscall(SYS_arch_prctl, option, nr) ? errno : 0;
}

int xf_get_mask(int option, uint64_t *mask)
{
	*mask = 0;
	return syscall(SYS_arch_prctl, option, mask) ? errno : 0;
}

/* ---- names ---- */

const char *xf_name(int nr)
{
	static const char * const names[] = {
		"x87", "SSE", "AVX", "BNDREGS", "BNDCSR", "OPMASK", "ZMM_Hi256", "Hi16_ZMM", "PT",
		"PKRU", "PASID", "CET_USER", "CET_KERNEL", "HDC", "UINTR", "LBR", "HWP",
		"XTILE_CFG", "XTILE_DATA", "APX", [63] = "compacted",
	};
	static char number[16];

	if (names[nr])
		return names[nr];
	snprintf(number, sizeof(number), "bit %d", nr);
	return number;
}

const char *xf_names(uint64_t mask, char *buf, size_t size)
{
	size_t len = 0;
	int i;

	snprintf(buf, size, " none");
	for (i = 0; i < 64 && len < size; i++)
		if (mask & XF_BIT(i))
			len += snprintf(buf + len, size - len, " %s", xf_name(i));
	return buf;
}

/* ---- the machine and its kernel ---- */

ssize_t xf_read_file(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t len;

	if (fd < 0)
		return -1;
	len = read(fd, buf, size - 1);
	close(fd);
	if (len >= 0)
		buf[len] = '\0';
	return len;
}

char xf_param(const char *module, const char *name)
{
	char path[128], value[16];

	snprintf(path, sizeof(path), "/sys/module/%s/parameters/%s", module, name);
	return xf_read_file(path, value, sizeof(value)) > 0 ? value[0] : 0;
}

bool xf_cpuinfo_flag(const char *flag)
{
	static char flags[8192];
	char key[64];
	FILE *f;

	if (!flags[0]) {
		f = fopen("/proc/cpuinfo", "re");
		while (f && fgets(flags, sizeof(flags), f))
			if (!strncmp(flags, "flags", 5))
				break;
		if (f)
			fclose(f);
		flags[strcspn(flags, "\n")] = ' ';
	}
	snprintf(key, sizeof(key), " %s ", flag);
	return strstr(flags, key);
}

const char *xf_pasid_missing(void)
{
	if (!(xf_cpu_supervisor_mask() & XFEATURE_MASK_PASID))
		return "no PASID state on this CPU";
	if (!xf_cpuinfo_flag("enqcmd") || !xf_cpuinfo_flag("xsaves"))
		return "the kernel does not use PASID state";
	return geteuid() ? "needs root" : NULL;
}

static void print_parameters(void)
{
	static const char * const parameters[][2] = {
		{ "kvm", "ignore_msrs" },
		{ "kvm_intel", "ept" },
		{ "kvm_intel", "unrestricted_guest" },
		{ "kvm_intel", "nested" },
		{ "kvm_intel", "cet" },
		{ "kvm_amd", "npt" },
		{ "kvm_amd", "nested" },
	};
	char text[256] = "", value;
	unsigned int i;
	size_t len = 0;

	for (i = 0; i < ARRAY_SIZE(parameters); i++) {
		value = xf_param(parameters[i][0], parameters[i][1]);
		if (value && len < sizeof(text))
			len += snprintf(text + len, sizeof(text) - len, " %s.%s=%c",
					parameters[i][0], parameters[i][1], value);
	}
	if (len)
		ksft_print_msg("parameters:%s\n", text);
}

void xf_print_machine(void)
{
	char user[256], supervisor[256];
	uint32_t model[13] = { 0 };
	struct utsname name;
	struct xf_regs r;
	int i;

	for (i = 0; i < 3; i++) {
		r = xf_cpuid(0x80000002 + i, 0);
		memcpy(model + 4 * i, &r, sizeof(r));
	}
	uname(&name);
	ksft_print_msg("Linux %s %s, %zu-bit program, uid %u, euid %u\n", name.release,
		       name.machine, 8 * sizeof(long), getuid(), geteuid());
	ksft_print_msg("CPU: %s, CPUID.1:EAX %#x\n", (char *)model, xf_cpuid(1, 0).eax);
	ksft_print_msg("XCR0 %#llx:%s\n", (unsigned long long)xf_xcr0(),
		       xf_names(xf_xcr0(), user, sizeof(user)));
	ksft_print_msg("supervisor components of the CPU:%s\n",
		       xf_names(xf_cpu_supervisor_mask(), supervisor, sizeof(supervisor)));
	ksft_print_msg("CPUID.0xD sizes: %u for XCR0, %u for XCR0 | IA32_XSS, at most %u\n",
		       xf_cpuid(0xd, 0).ebx, xf_cpuid(0xd, 1).ebx, xf_cpuid(0xd, 0).ecx);
	print_parameters();
}

#define WARN_COUNT	"/sys/kernel/warn_count"

/* The kernel's warnings since boot; without a count, whether there was any */
static unsigned long long warnings(void)
{
	char buf[32];

	if (xf_read_file(WARN_COUNT, buf, sizeof(buf)) > 0)
		return strtoull(buf, NULL, 10);
	if (xf_read_file("/proc/sys/kernel/tainted", buf, sizeof(buf)) > 0)
		return strtoull(buf, NULL, 10) & TAINT_WARN;
	return 0;
}

static unsigned long long warnings_before;

void xf_note_warnings(void)
{
	warnings_before = warnings();
	if (warnings_before && access(WARN_COUNT, R_OK))
		TH_ROW_LOG("the kernel has warned before: a new warning does not show");
}

void xf_expect_no_warning(struct __test_metadata *const _metadata)
{
	EXPECT_SAME(warnings_before, warnings(), "warnings in the kernel's log");
}

/* ---- memory ---- */

/* All of it is there: who takes a page away wants the first fault to be after that. */
uint8_t *xf_guarded(size_t size, uint8_t poison)
{
	size_t page = sysconf(_SC_PAGESIZE);
	size_t len = (size + page - 1) / page * page;
	uint8_t *p;

	p = mmap(NULL, len + page, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (p == MAP_FAILED || mprotect(p + len, page, PROT_NONE))
		ksft_exit_fail_perror("cannot map a guarded buffer");
	p += len - size;
	/* libkvm has a memset() of its own, for guests, which is slow. */
	if (poison)
		memset(p, poison, size);
	return p;
}
