// SPDX-License-Identifier: GPL-2.0-only
/*
 * The checks of the KVM selftest xstate_perm_test without the library of the
 * KVM selftests: for kernels too old for that, and for machines without KVM,
 * where what needs none is checked all the same.
 */
#define _GNU_SOURCE

#include "xcomp_guest.h"
#include "xcomp_tidy.h"
#include "xcomp_vcpu_checks.h"

static const char * const perms[] = {
	"none", "host", "guest", "both", "late", "inherited", "exec",
};

/* Checks that depend on the permission alone */
static const struct xcomp_check proc_checks[] = {
	{ "masks", xcomp_check_masks },
	{ "request", xcomp_check_request },
	{ "guest_supp", xcomp_check_guest_supp },
	{ "cap_xsave2", xcomp_check_cap_xsave2 },
	{ "cpuid_0xd_0", xcomp_check_cpuid_0xd_0 },
	{ "cpuid_0xd_1", xcomp_check_cpuid_0xd_1 },
	{ "cpuid_subleaves", xcomp_check_cpuid_subleaves },
	{ "cpuid_constant", xcomp_check_cpuid_constant },
	{ "cet_offered", xcomp_check_cet_offered },
};

/* Checks that depend on guest CPUID as well, with all of CET in it */
static const struct xcomp_check vcpu_checks[] = {
	{ "set_cpuid", xcomp_check_set_cpuid },
	{ "xsave2", xcomp_check_xsave2 },
	{ "runtime_size", xcomp_check_runtime_size },
	{ "xss", xcomp_check_xss },
	{ "cet_msrs", xcomp_check_cet_msrs },
	{ "guest_msrs", xcomp_check_guest_msrs },
	{ "xcomp_bv", xcomp_check_xcomp_bv },
};

static void report(const char *combo, const struct xcomp_check *check)
{
	struct xcomp x;
	char name[64];
	int result;

	if (!xcomp_parse(&x, combo))
		ksft_exit_fail_msg("no combination %s\n", combo);
	result = xcomp_fork(&x, check, xcomp_grant);
	snprintf(name, sizeof(name), "%s.%s", combo, check->name);
	ksft_test_result_code(result, name, x.reason ? "%s" : NULL, x.reason);
}

static void report_all(const char *perm, const char *amx,
		       const struct xcomp_check *checks, unsigned int nr)
{
	char combo[32];
	unsigned int i;

	snprintf(combo, sizeof(combo), "%s%s", perm, amx);
	for (i = 0; i < nr; i++)
		report(combo, &checks[i]);
}

int main(int argc, char **argv)
{
	const struct xcomp_check *all[ARRAY_SIZE(proc_checks) +
				      ARRAY_SIZE(vcpu_checks) + 1] = { NULL };
	unsigned int i, nr = 0;

	for (i = 0; i < ARRAY_SIZE(proc_checks); i++)
		all[nr++] = &proc_checks[i];
	for (i = 0; i < ARRAY_SIZE(vcpu_checks); i++)
		all[nr++] = &vcpu_checks[i];

	xcomp_init();
	if (argc > 1 && !strcmp(argv[1], XCOMP_AFTER_EXEC))
		return xcomp_after_exec(argc, argv, all);
	if (argc > 1) {
		fprintf(stderr, "%s takes no arguments\n", argv[0]);
		return KSFT_FAIL;
	}

	xcomp_tidy();
	xf_trace_open();
	ksft_print_header();
	ksft_set_plan(ARRAY_SIZE(perms) * (ARRAY_SIZE(proc_checks) +
					   2 * ARRAY_SIZE(vcpu_checks)));
	for (i = 0; i < ARRAY_SIZE(perms); i++) {
		report_all(perms[i], "", proc_checks, ARRAY_SIZE(proc_checks));
		report_all(perms[i], "_noamx", vcpu_checks,
			   ARRAY_SIZE(vcpu_checks));
		report_all(perms[i], "_amx", vcpu_checks,
			   ARRAY_SIZE(vcpu_checks));
	}
	ksft_finished();
}
