/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * All tiles of AMX at their full size: how to configure, load, store and
 * release them, without help from the compiler or the assembler.
 */
#ifndef SELFTEST_KVM_XSTATE_TILE_H
#define SELFTEST_KVM_XSTATE_TILE_H

#include <stdint.h>

#include <linux/compiler.h>

/* What AMX has room for: eight tiles of 16 rows of 64 bytes */
#define XSTATE_TILES		8
#define XSTATE_TILE_ROWS	16
#define XSTATE_TILE_ROW		64
#define XSTATE_TILE_SIZE	(XSTATE_TILE_ROWS * XSTATE_TILE_ROW)
#define XSTATE_TILES_SIZE	(XSTATE_TILES * XSTATE_TILE_SIZE)

/* What LDTILECFG and STTILECFG move */
#define XSTATE_TILECFG_SIZE	64

/* Fill @config: palette 1 with all tiles at their full size. */
static __always_inline void xstate_tile_config(uint8_t *config)
{
	int i;

	for (i = 0; i < XSTATE_TILECFG_SIZE; i++)
		config[i] = 0;
	config[0] = 1;
	for (i = 0; i < XSTATE_TILES; i++) {
		config[16 + 2 * i] = XSTATE_TILE_ROW;
		config[48 + i] = XSTATE_TILE_ROWS;
	}
}

/* ldtilecfg (%rax) */
static inline void xstate_ldtilecfg(const uint8_t *config)
{
	asm volatile(".byte 0xc4, 0xe2, 0x78, 0x49, 0x00"
		     : : "a" (config) : "memory");
}

/* sttilecfg (%rax) */
static inline void xstate_sttilecfg(uint8_t *config)
{
	asm volatile(".byte 0xc4, 0xe2, 0x79, 0x49, 0x00"
		     : : "a" (config) : "memory");
}

static inline void xstate_tilerelease(void)
{
	asm volatile(".byte 0xc4, 0xe2, 0x78, 0x49, 0xc0" : : : "memory");
}

/*
 * Load all tiles from XSTATE_TILES_SIZE bytes, one tile after the other:
 * tileloadd (%rax,%rcx), %tmmN, where N is a field of the byte that counts.
 */
static inline void xstate_load_tiles(const uint8_t *tiles)
{
	asm volatile(".set xstate_modrm, 4\n\t"
		     ".rept 8\n\t"
		     ".byte 0xc4, 0xe2, 0x7b, 0x4b, xstate_modrm, 8\n\t"
		     "add %[size], %%rax\n\t"
		     ".set xstate_modrm, xstate_modrm + 8\n\t"
		     ".endr"
		     : "+a" (tiles)
		     : "c" ((long)XSTATE_TILE_ROW), [size] "i" (XSTATE_TILE_SIZE)
		     : "memory", "cc");
}

/* The reverse: tilestored %tmmN, (%rax,%rcx) */
static inline void xstate_store_tiles(uint8_t *tiles)
{
	asm volatile(".set xstate_modrm, 4\n\t"
		     ".rept 8\n\t"
		     ".byte 0xc4, 0xe2, 0x7a, 0x4b, xstate_modrm, 8\n\t"
		     "add %[size], %%rax\n\t"
		     ".set xstate_modrm, xstate_modrm + 8\n\t"
		     ".endr"
		     : "+a" (tiles)
		     : "c" ((long)XSTATE_TILE_ROW), [size] "i" (XSTATE_TILE_SIZE)
		     : "memory", "cc");
}

#endif /* SELFTEST_KVM_XSTATE_TILE_H */
