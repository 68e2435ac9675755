/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Delays for threads that race, all from one seed. XSTATE_RACE_SEED in the
 * environment repeats a run.
 */
#ifndef SELFTEST_KVM_XSTATE_RACE_H
#define SELFTEST_KVM_XSTATE_RACE_H

#include <sched.h>
#include <time.h>

#include "xstate_util.h"

static unsigned int race_seed;

static __thread u32 race_state;

static inline u32 race_random(void)
{
	race_state = race_state * 1664525 + 1013904223;
	return race_state >> 8;
}

/* Let the other thread in at a place that differs from time to time. */
static inline void race_delay(void)
{
	u32 i, n = race_random();

	if (n & 1)
		sched_yield();
	for (i = 0; i < (n >> 1) % 2000; i++)
		cpu_relax();
}

/* Take the seed from the environment, or else from the clock, and run. */
static inline int race_main(int argc, char **argv)
{
	const char *seed = getenv("XSTATE_RACE_SEED");
	char *end;

	race_seed = time(NULL);
	if (seed) {
		race_seed = strtoul(seed, &end, 0);
		if (!*seed || *end) {
			fprintf(stderr, "XSTATE_RACE_SEED='%s' is no number\n",
				seed);
			return KSFT_FAIL;
		}
	}
	return xstate_main(argc, argv);
}

#endif /* SELFTEST_KVM_XSTATE_RACE_H */
