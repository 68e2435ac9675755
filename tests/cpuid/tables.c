// SPDX-License-Identifier: GPL-2.0-only
/*
 * The arithmetic of xfeature.c over CPUID leaf 0xD of CPUs that are not at hand, or do
 * not exist: sizes, offsets and names.  This file is linked before xfeature.c, whose
 * xf_cpuid() and xf_xcr0() it replaces.
 */
#include "xfeature.h"

/* In ECX */
enum { USER, SUPERVISOR, ALIGNED };

struct component {
	unsigned int nr, size, offset, flags;
};

/* Kernels of the first five have these sizes of all in XCR0 in their logs. */
static const struct cpu {
	const char *name;
	unsigned long xcr0;
	struct component components[20];
	struct {
		unsigned long mask;
		unsigned int standard, compacted;
	} sizes[6];
} cpus[] = {
	{ "Haswell", 0x7, { { 2, 256, 576 } }, { { 0x3, 576, 576 }, { 0x7, 832, 832 } } },
	{ "Skylake-X", 0x2ff,
	  { { 2, 256, 576 }, { 3, 64, 960 }, { 4, 64, 1024 }, { 5, 64, 1088 }, { 6, 512, 1152 },
	    { 7, 1024, 1664 }, { 9, 8, 2688 } },
	  { { 0x2ff, 2696, 2568 }, { 0x2e7, 2696, 2440 }, { 0x1f, 1088, 960 } } },
	{ "Zen 3", 0x207,
	  { { 2, 256, 576 }, { 9, 8, 832 }, { 11, 16, 0, SUPERVISOR }, { 12, 24, 0, SUPERVISOR } },
	  { { 0x207, 840, 840 }, { 0x1a07, 840, 880 } } },
	{ "Zen 4", 0x2e7,
	  { { 2, 256, 576 }, { 5, 64, 832 }, { 6, 512, 896 }, { 7, 1024, 1408 }, { 9, 8, 2432 },
	    { 11, 16, 0, SUPERVISOR }, { 12, 24, 0, SUPERVISOR } },
	  { { 0x2e7, 2440, 2440 }, { 0xae7, 2440, 2456 } } },
	/* With PT, PASID, CET, HDC, UINTR, LBR, HWP; the alignment of tiles swallows some. */
	{ "Sapphire Rapids", 0x602e7,
	  { { 2, 256, 576 }, { 5, 64, 1088 }, { 6, 512, 1152 }, { 7, 1024, 1664 },
	    { 8, 128, 0, SUPERVISOR }, { 9, 8, 2688 }, { 10, 8, 0, SUPERVISOR },
	    { 11, 16, 0, SUPERVISOR }, { 12, 24, 0, SUPERVISOR }, { 13, 8, 0, SUPERVISOR },
	    { 14, 48, 0, SUPERVISOR }, { 15, 808, 0, SUPERVISOR }, { 16, 8, 0, SUPERVISOR },
	    { 17, 64, 2752, ALIGNED }, { 18, 8192, 2816, ALIGNED } },
	  { { 0x2e7, 2696, 2440 }, { 0x602e7, 11008, 10752 }, { 0x61ee7, 11008, 10752 },
	    { 0x65ee7, 11008, 10816 }, { 0x6dee7, 11008, 11648 }, { 0x7ffe7, 11008, 11776 } } },
	{ "with APX", 0xe02e7,
	  { { 2, 256, 576 }, { 5, 64, 1088 }, { 6, 512, 1152 }, { 7, 1024, 1664 }, { 9, 8, 2688 },
	    { 17, 64, 2752, ALIGNED }, { 18, 8192, 2816, ALIGNED }, { 19, 128, 960 } },
	  { { 0xe02e7, 11008, 10880 }, { 0x80003, 1088, 704 }, { 0x802e7, 2696, 2568 } } },
	{ "with the last component", 0x7,
	  { { 2, 256, 576 }, { 33, 100, 832 }, { 62, 40, 1000, ALIGNED } },
	  { { 1UL << 33, 932, 676 }, { 1UL << 62, 1040, 616 },
	    { 1UL << 62 | 1UL << 33 | 7, 1040, 1000 } } },
};

static const struct cpu *cpu = cpus;

struct xf_regs xf_cpuid(unsigned int leaf, unsigned int subleaf)
{
	const struct component *c = cpu->components;

	while (c->nr && c->nr != subleaf)
		c++;
	if (leaf != 0xd)
		return (struct xf_regs) { };
	return (struct xf_regs) { c->size, c->offset, c->flags };
}

unsigned long xf_xcr0(void)
{
	return cpu->xcr0;
}

static int failed;

static void is(unsigned long wanted, unsigned long got, const char *what, unsigned long mask)
{
	if (wanted == got)
		return;
	printf("%s, %s of %#lx: wanted %lu got %lu\n", cpu->name, what, mask, wanted, got);
	failed = 1;
}

/* The components of @mask lie one after the other, also for who asks for one that is not in it. */
static void is_dense(unsigned long mask, unsigned int size)
{
	const struct component *c;
	unsigned int at = XF_BASE_SIZE;

	for (c = cpu->components; c->nr; c++) {
		if (!(mask >> c->nr & 1))
			continue;
		if (c->flags & ALIGNED)
			at = (at + 63) / 64 * 64;
		is(at, xf_compacted_offset(mask, c->nr), xf_name(c->nr), mask);
		is(at, xf_compacted_offset(mask & ~XF_BIT(c->nr), c->nr), "one more", mask);
		at += c->size;
	}
	is(size, at, "end", mask);
}

int main(void)
{
	unsigned long mask;
	char names[256];
	int i;

	for (; cpu < cpus + ARRAY_SIZE(cpus); cpu++) {
		for (i = 0; i < 6 && cpu->sizes[i].mask; i++) {
			mask = cpu->sizes[i].mask;
			is(cpu->sizes[i].standard, xf_standard_size(mask), "standard size",
			   mask);
			is(cpu->sizes[i].compacted, xf_compacted_size(mask), "compacted size",
			   mask);
			is_dense(mask, cpu->sizes[i].compacted);
		}
		is(cpu->xcr0, xf_permitted(true), "permission", ~0ul);
		is(cpu->xcr0 & ~(1ul << 18), xf_permitted(false), "permission", 0);
	}
	cpu = cpus;
	xf_names(XF_BIT(14) | XF_BIT(15) | XF_BIT(19) | XF_BIT(40), names, sizeof(names));
	is(0, strcmp(names, " UINTR LBR APX bit 40"), names, 0);
	return failed;
}
