// SPDX-License-Identifier: GPL-2.0-only
/*
 * AMX: the images of its components, what XFD stops, and the dot products.
 */
#include "cpu_user.h"

/* Verify that XINUSE[18] says whether there is tile data, and TILERELEASE ends it. */
static void xinuse_tiledata(void)
{
	need_amx(setup(HAS_XSAVEC | HAS_XGETBV1));
	fill_regs(&op.in, 1);
	run(XSAVEC, AMX_MASK);
	check_eq(op.xinuse & AMX_MASK, AMX_MASK, "XINUSE with tile data");
	check_eq(header(op.area)[0], AMX_MASK, "XSTATE_BV with tile data");
	asm volatile("ldtilecfg (%0)\n\ttileloadd (%1,%2,1), %%tmm0\n\ttilerelease"
		     : : "r" (op.in.tilecfg), "r" (op.in.tile), "r" (64UL) : "memory");
	check_eq(xgetbv(1) & AMX_MASK, 0, "XINUSE after TILERELEASE");
	poison_area(&op);
	TRY("xsavec64 (%[area])", [area] "r" (op.area), "a" ((__u32)AMX_MASK), "d" (0));
	check_eq(header(op.area)[0], 0, "XSTATE_BV after TILERELEASE");
}

/* Verify where XSAVE puts the palette, the bytes of a row and the rows. */
static void tilecfg_image(void)
{
	__u8 *image = op.area;
	int n;

	need_amx(setup(0));
	image += cpu.offset[TILECFG];
	fill_regs(&op.in, 0);
	poison_area(&op);
	run(XSAVE, BIT(TILECFG));
	check_eq(image[0], 1, "palette");
	check_eq(image[1], 0, "start row");
	for (n = 0; n < 8; n++) {
		check(image[16 + 2 * n] == op.in.tilecfg[16 + 2 * n] && !image[17 + 2 * n],
		      "tile %d: bytes of a row: wanted %u, got %u", n, op.in.tilecfg[16 + 2 * n],
		      image[16 + 2 * n]);
		check(image[48 + n] == op.in.tilecfg[48 + n], "tile %d: rows: wanted %u, got %u",
		      n, op.in.tilecfg[48 + n], image[48 + n]);
	}
}

/* Verify that all rows of all tiles are saved, and loaded again. */
static void tiledata_image(void)
{
	__u8 *image = op.area, *want;
	int n, row;

	need_amx(setup(0));
	image += cpu.offset[TILEDATA];
	fill_regs(&op.in, 1);
	poison_area(&op);
	run(XSAVE, BIT(TILEDATA));
	for (n = 0; n < 8; n++) {
		for (row = 0; row < 16; row++) {
			want = op.in.tile[n] + 64 * row;
			check(!memcmp(image + 1024 * n + 64 * row, want, 64),
			      "saved tile %d row %d: wanted %#x..., got %#x...", n, row, want[0],
			      image[1024 * n + 64 * row]);
		}
	}
	restore(XRSTOR, BIT(TILEDATA), BIT(TILEDATA), 0);
}

/* Be a task without the permission: the kernel keeps XFD[18] set for it. */
static void setup_without_permission(void)
{
	__u64 permitted = 0;

	read_cpu();
	catch_faults();
	if ((cpu.xcr0 & AMX_MASK) != AMX_MASK || !(cpu.features & HAS_XFD))
		skip("no AMX or no XFD");
	syscall(SYS_arch_prctl, ARCH_GET_XCOMP_PERM, &permitted);
	if (permitted & BIT(TILEDATA))
		skip("AMX is permitted from the start");
	init_op(&op);
	op.load = cpu.xcr0 & KNOWN_MASK & ~AMX_MASK;
	op.fill = op.load;
	if (op.load & BIT(PKRU))
		op.pkru = rdpkru();
	fill_regs(&op.in, 1);
}

/* The kernel makes a SIGILL of #NM if the task has no permission. */
static void check_nm(const char *what, int raises)
{
	check((fault.signo == SIGILL) == raises, "%s: wanted %s, got signal %d", what,
	      raises ? "#NM, sent as SIGILL" : "no #NM", fault.signo);
}

/* Verify which instructions raise #NM with XFD[18]. */
static void xfd_instructions(void)
{
	__u8 config[64] = { 0 };

	setup_without_permission();
	TRY("ldtilecfg (%[p])", [p] "r" (op.in.tilecfg));
	check_nm("LDTILECFG", 0);
	TRY("sttilecfg (%[p])", [p] "r" (config));
	check_nm("STTILECFG", 0);
	check(!memcmp(config, op.in.tilecfg, 64), "STTILECFG: not what LDTILECFG loaded");
	TRY("tilezero %%tmm0", "r" (0));
	check_nm("TILEZERO", 1);
	TRY("tileloadd (%[p],%[s],1), %%tmm0", [p] "r" (op.in.tile), [s] "r" (64UL));
	check_nm("TILELOADD", 1);
	TRY("tileloaddt1 (%[p],%[s],1), %%tmm0", [p] "r" (op.in.tile), [s] "r" (64UL));
	check_nm("TILELOADDT1", 1);
	TRY("tilestored %%tmm0, (%[p],%[s],1)", [p] "r" (op.out.tile), [s] "r" (64UL));
	check_nm("TILESTORED", 1);
	TRY("tdpbssd %%tmm2, %%tmm1, %%tmm0", "r" (0));
	check_nm("TDPBSSD", 1);
	TRY("tdpbuud %%tmm2, %%tmm1, %%tmm0", "r" (0));
	check_nm("TDPBUUD", 1);
	TRY("tdpbf16ps %%tmm2, %%tmm1, %%tmm0", "r" (0));
	check_nm("TDPBF16PS", 1);
	TRY("tilerelease", "r" (0));
	check_nm("TILERELEASE", 0);
	if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILEDATA))
		skip("no permission for AMX");
	TRY("ldtilecfg (%[p])", [p] "r" (op.in.tilecfg));
	check_nm("LDTILECFG", 0);
	TRY("tilezero %%tmm0", "r" (0));
	check_nm("TILEZERO", 0);
}

/* Verify that the XSAVE instructions take component 18 for initial with XFD[18]. */
static void xfd_save(void)
{
	static const __u8 zero[8192];
	__u8 *data = op.area;

	setup_without_permission();
	data += cpu.offset[TILEDATA];
	poison_area(&op);
	run(XSAVE, AMX_MASK);
	check_eq(op.vector, NO_FAULT, "vector of XSAVE");
	check_eq(header(op.area)[0] & BIT(TILEDATA), 0, "XSTATE_BV[18] of XSAVE");
	check(!memcmp(data, zero, sizeof(zero)), "XSAVE: component 18 is not all zero");
	poison_area(&op);
	run(XSAVEC, AMX_MASK);
	check_eq(op.vector, NO_FAULT, "vector of XSAVEC");
	check_eq(header(op.area)[0] & BIT(TILEDATA), 0, "XSTATE_BV[18] of XSAVEC");
	check_eq(header(op.area)[1], AMX_MASK | COMPACTED, "XCOMP_BV of XSAVEC");
	check_eq(op.area[compact_offset(AMX_MASK, TILEDATA)], POISON, "XSAVEC: first byte of 18");
}

/* Verify that XRSTOR raises #NM with XFD[18] if it would load component 18. */
static void xfd_restore(void)
{
	static const __u64 formats[] = { 0, COMPACTED | AMX_MASK };
	__u32 i;

	setup_without_permission();
	fill_regs(&other, 0);
	for (i = 0; i < ARRAY_SIZE(formats); i++) {
		put_area(&op, &other, AMX_MASK, formats[i]);
		run(XRSTOR, AMX_MASK);
		check_nm("RFBM[18] and XSTATE_BV[18] set", 1);
		run(XRSTOR, BIT(TILECFG));
		check_nm("RFBM[18] clear", 0);
		put_area(&op, &other, BIT(TILECFG), formats[i]);
		run(XRSTOR, AMX_MASK);
		check_nm("XSTATE_BV[18] clear", 0);
	}
}

/* ---- AMX dot products against plain C ---- */

enum product { SSD, SUD, USD, UUD, BF16 };

/* Shapes: rows of A and C, bytes of a row of A, bytes of a row of B and C. */
static const struct { int rows, a_bytes, c_bytes; } shapes[] = {
	{ 16, 64, 64 }, { 5, 12, 64 }, { 16, 64, 4 }, { 1, 4, 4 }, { 7, 36, 20 },
};

static __u32 byte_product(enum product product, const __u8 *a, const __u8 *b)
{
	__u32 sum = 0;
	int n, x, y;

	for (n = 0; n < 4; n++) {
		x = product == SSD || product == SUD ? (__s8)a[n] : a[n];
		y = product == SSD || product == USD ? (__s8)b[n] : b[n];
		sum += x * y;
	}
	return sum;
}

/* Small whole numbers: exact in any order of the additions. */
static float bf16(const __u8 *p)
{
	__u32 bits = p[0] << 16 | p[1] << 24;
	float value;

	memcpy(&value, &bits, 4);
	return value;
}

static void put_bf16(__u8 *p, int value)
{
	float f = value;
	__u32 bits;

	memcpy(&bits, &f, 4);
	p[0] = bits >> 16;
	p[1] = bits >> 24;
}

static void want_product(enum product product, int shape, __u8 c[1024], __u8 *a, __u8 *b)
{
	int m, n, k, rows = shapes[shape].rows, row_bytes = shapes[shape].c_bytes;
	__u32 sum;
	float f;

	for (m = 0; m < rows; m++) {
		for (n = 0; n < row_bytes / 4; n++) {
			memcpy(&sum, c + 64 * m + 4 * n, 4);
			memcpy(&f, c + 64 * m + 4 * n, 4);
			for (k = 0; k < shapes[shape].a_bytes / 4; k++) {
				__u8 *x = a + 64 * m + 4 * k, *y = b + 64 * k + 4 * n;

				sum += byte_product(product, x, y);
				f += bf16(x) * bf16(y) + bf16(x + 2) * bf16(y + 2);
			}
			memcpy(c + 64 * m + 4 * n, product == BF16 ? (void *)&f : &sum, 4);
		}
		memset(c + 64 * m + row_bytes, 0, 64 - row_bytes);
	}
	memset(c + 64 * rows, 0, 1024 - 64 * rows);
}

static void dot_product(enum product product, __u32 feature)
{
	static __u8 a[1024], b[1024], c[1024], want[1024], config[64];
	__u32 eax, ebx, ecx, edx, shape, n;

	need_amx(setup(0));
	__cpuid_count(7, 0, eax, ebx, ecx, edx);
	if (!(edx & feature))
		skip("no such AMX instruction");
	for (shape = 0; shape < ARRAY_SIZE(shapes); shape++) {
		for (n = 0; n < 1024; n++) {
			a[n] = next_random();
			b[n] = next_random();
			c[n] = next_random();
		}
		for (n = 0; product == BF16 && n < 1024; n += 2) {
			put_bf16(a + n, (int)(next_random() >> 8 & 15) - 8);
			put_bf16(b + n, (int)(next_random() >> 8 & 15) - 8);
			put_bf16(c + n, n & 2 ? (int)(next_random() >> 8 & 63) - 32 : 0);
		}
		memset(config, 0, sizeof(config));
		config[0] = 1;
		config[16] = shapes[shape].c_bytes;
		config[18] = shapes[shape].a_bytes;
		config[20] = shapes[shape].c_bytes;
		config[48] = shapes[shape].rows;
		config[49] = shapes[shape].rows;
		config[50] = shapes[shape].a_bytes / 4;
		memcpy(want, c, sizeof(want));
		want_product(product, shape, want, a, b);
		asm volatile("ldtilecfg (%0)\n\ttileloadd (%1,%4,1), %%tmm0\n\t"
			     "tileloadd (%2,%4,1), %%tmm1\n\ttileloadd (%3,%4,1), %%tmm2"
			     : : "r" (config), "r" (c), "r" (a), "r" (b), "r" (64UL) : "memory");
		if (product == SSD)
			asm volatile("tdpbssd %tmm2, %tmm1, %tmm0");
		else if (product == SUD)
			asm volatile("tdpbsud %tmm2, %tmm1, %tmm0");
		else if (product == USD)
			asm volatile("tdpbusd %tmm2, %tmm1, %tmm0");
		else if (product == UUD)
			asm volatile("tdpbuud %tmm2, %tmm1, %tmm0");
		else
			asm volatile("tdpbf16ps %tmm2, %tmm1, %tmm0");
		/* XSAVE shows the zeroed rest too. */
		TRY("xsave64 (%[area])", [area] "r" (op.area), "a" ((__u32)BIT(TILEDATA)), "d" (0));
		asm volatile("tilerelease");
		for (n = 0; n < 1024 && op.area[cpu.offset[TILEDATA] + n] == want[n]; n++)
			;
		check(n == 1024, "shape %u: byte %u: wanted %#x, got %#x", shape, n, want[n & 1023],
		      op.area[cpu.offset[TILEDATA] + (n & 1023)]);
	}
}

static void tdpbssd(void)
{
	dot_product(SSD, BIT(25));
}

static void tdpbsud(void)
{
	dot_product(SUD, BIT(25));
}

static void tdpbusd(void)
{
	dot_product(USD, BIT(25));
}

static void tdpbuud(void)
{
	dot_product(UUD, BIT(25));
}

static void tdpbf16ps(void)
{
	dot_product(BF16, BIT(22));
}

static const struct cpu_test amx_tests_list[] = {
	{ "xinuse_tiledata", "Intel SDM vol. 1, Processor Tracking of XSAVE-Managed State",
	  xinuse_tiledata },
	{ "tilecfg_image", "Intel SDM vol. 2, LDTILECFG; vol. 1, Intel AMX State", tilecfg_image },
	{ "tiledata_image", "Intel SDM vol. 1, Intel AMX State", tiledata_image },
	{ "xfd_instructions", "Intel SDM vol. 1, Extended Feature Disable (XFD)",
	  xfd_instructions },
	{ "xfd_save", "Intel SDM vol. 1, Extended Feature Disable (XFD)", xfd_save },
	{ "xfd_restore", "Intel SDM vol. 1, Extended Feature Disable (XFD)", xfd_restore },
	{ "tdpbssd", "Intel SDM vol. 2, TDPBSSD/TDPBSUD/TDPBUSD/TDPBUUD", tdpbssd },
	{ "tdpbsud", "Intel SDM vol. 2, TDPBSSD/TDPBSUD/TDPBUSD/TDPBUUD", tdpbsud },
	{ "tdpbusd", "Intel SDM vol. 2, TDPBSSD/TDPBSUD/TDPBUSD/TDPBUUD", tdpbusd },
	{ "tdpbuud", "Intel SDM vol. 2, TDPBSSD/TDPBSUD/TDPBUSD/TDPBUUD", tdpbuud },
	{ "tdpbf16ps", "Intel SDM vol. 2, TDPBF16PS", tdpbf16ps },
};

TEST_GROUP(amx_tests);
