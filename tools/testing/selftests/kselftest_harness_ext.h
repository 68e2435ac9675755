/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What kselftest_harness.h lacks, written so that it can become a part of it, which
 * "make series" makes of it:
 *
 * - XFAIL_IF(), a failure that is known, and told apart at run time;
 * - EXPECT_SAME() and friends, which name the row and print what they compare
 *   in hex, with what the caller says about the case;
 * - an exit status of 4 where every row was skipped, and of 1 where no row of
 *   the given name exists;
 * - SKIP() that makes no skip of a row that has failed;
 * - after a failure, the commands that run the failed rows alone.
 *
 * Include this file in place of kselftest_harness.h, and before any file that
 * includes that one.  Helpers in other files may use all of this: they take
 * _metadata as their first parameter.
 */
#ifndef __KSELFTEST_HARNESS_EXT_H
#define __KSELFTEST_HARNESS_EXT_H

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kselftest.h"

#define TH_FAILED_ROWS	8
#define TH_ROW_SIZE	1024

/* The row that runs, as the harness names it; all files of a program share it. */
#pragma weak th_row
char th_row[TH_ROW_SIZE];

/* The first rows that failed, and how many did, in the process of main() */
static char *th_failed[TH_FAILED_ROWS];
static unsigned int th_nr_failed;

static inline void th_test_result_code(int code, const char *row, const char *fmt,
				       const char *reason)
{
	if (code == KSFT_FAIL && th_nr_failed++ < TH_FAILED_ROWS)
		th_failed[th_nr_failed - 1] = strdup(row);
	ksft_test_result_code(code, row, fmt, reason);
}

/* End the program: 0 if a row has passed, 1 if one failed, 4 if all skipped. */
static inline void th_exit(bool passed)
{
	unsigned int i, nr = ksft_test_num();

	if (!nr)
		fprintf(stderr, "no row of that name: -l lists them\n");
	for (i = 0; i < th_nr_failed && i < TH_FAILED_ROWS; i++)
		ksft_print_msg("to run it alone: %s -r %s\n", program_invocation_name,
			       th_failed[i]);
	ksft_print_cnts();
	exit(!nr || !passed ? KSFT_FAIL : ksft_cnt.ksft_xskip == nr ? KSFT_SKIP : KSFT_PASS);
}

/*
 * What the harness defines in each file that includes it and does not hide, in
 * some versions: objects are to be one, and functions are each file's own.
 */
struct __fixture_metadata;
struct __fixture_variant_metadata;
struct __test_metadata;

#pragma weak _fixture_global
#pragma weak __active_test
extern struct __test_metadata *__active_test;
static void __wait_for_test(struct __test_metadata *t);
static void __run_test(struct __fixture_metadata *f, struct __fixture_variant_metadata *variant,
		       struct __test_metadata *t);
/* Only the file of main() calls it; compilers do not miss that of inline functions. */
static inline int test_harness_run(int argc, char **argv);

#undef ksft_exit
#define ksft_exit(condition)	th_exit(condition)
#define ksft_test_result_code	th_test_result_code

#include "kselftest_harness.h"

/* What th_case() says of the case at hand; all files of a program share it. */
#pragma weak th_case_text
char th_case_text[TH_ROW_SIZE];

/*
 * th_case(fmt, ...): say what the diagnostics to come are about, as the variables
 * of a loop are, until it is called again.  th_no_case() ends that.
 */
#define th_case(fmt, ...) \
	snprintf(th_case_text, sizeof(th_case_text), " [" fmt "]", ##__VA_ARGS__)
#define th_no_case() \
	(th_case_text[0] = '\0')

/* A diagnostic with file, line, row and case, which does not fail the test */
#define TH_ROW_LOG(fmt, ...) \
	ksft_print_msg("%s:%d: %s%s: " fmt "\n", strrchr("/" __FILE__, '/') + 1, __LINE__, \
		       th_row, th_case_text, ##__VA_ARGS__)

static inline bool __th_failed(struct __test_metadata *const _metadata)
{
	_metadata->exit_code = KSFT_FAIL;
	return false;
}

/* All of these are true if what they expect holds, and go on if it does not. */

/*
 * EXPECT_SAME(wanted, got, fmt, ...): the two are the same number.  @fmt says
 * what they are, and in a loop its variables.
 */
#define EXPECT_SAME(wanted, got, fmt, ...) ({						\
	unsigned long long __wanted = (wanted), __got = (got);				\
	bool __same = __wanted == __got || __th_failed(_metadata);			\
											\
	if (!__same)									\
		TH_ROW_LOG(fmt ": wanted %#llx got %#llx", ##__VA_ARGS__, __wanted, __got); \
	__same;										\
})

/* The same of masks; @names(mask, buf, size) tells their bits by name. */
#define EXPECT_SAME_MASK(names, wanted, got, fmt, ...) ({				\
	const char *(*__names)(uint64_t mask, char *buf, size_t size) = names;		\
	unsigned long long __wanted = (wanted), __got = (got);				\
	bool __same = __wanted == __got || __th_failed(_metadata);			\
	char __lost[256], __more[256];							\
											\
	if (!__same)									\
		TH_ROW_LOG(fmt ": wanted %#llx got %#llx; lost:%s, too many:%s",	\
			   ##__VA_ARGS__, __wanted, __got,				\
			   __names(__wanted & ~__got, __lost, sizeof(__lost)),		\
			   __names(__got & ~__wanted, __more, sizeof(__more)));		\
	__same;										\
})

/* The same of results of calls: 0 for success, or an errno. */
#define EXPECT_ERRNO(wanted, got, fmt, ...) ({						\
	int __wanted = (wanted), __got = (got);						\
	bool __same = __wanted == __got || __th_failed(_metadata);			\
											\
	if (!__same)									\
		TH_ROW_LOG(fmt ": wanted %s (%d) got %s (%d)", ##__VA_ARGS__,		\
			   th_errno_name(__wanted), __wanted, th_errno_name(__got), __got); \
	__same;										\
})

/* No function: the C library of those who do not use it need not have that. */
#define th_errno_name(nr) ({								\
	int __nr = (nr);								\
											\
	__nr ? strerrorname_np(__nr) : "success";					\
})

/* @condition holds; @fmt says what is wrong if it does not. */
#define EXPECT_THAT(condition, fmt, ...) ({						\
	bool __holds = (condition) || __th_failed(_metadata);				\
											\
	if (!__holds)									\
		TH_ROW_LOG(fmt, ##__VA_ARGS__);						\
	__holds;									\
})

/*
 * XFAIL_IF(known, reason) { ... }: run the block.  If the failure is a known
 * one, what fails in there makes the row an XFAIL with the constant @reason.
 * Use EXPECT_*() in there: what ends the test ends it as a failure.
 */
#define XFAIL_IF(known, reason)								\
	for (struct th_xfail __x = th_xfail_begin(_metadata, known, reason); __x.running; \
	     th_xfail_end(_metadata, &__x))

struct th_xfail {
	const char *reason;	/* NULL where a failure is one */
	bool running;
};

static inline struct th_xfail th_xfail_begin(struct __test_metadata *const _metadata, bool known,
					     const char *reason)
{
	known &= _metadata->exit_code != KSFT_FAIL;
	if (known)
		TH_ROW_LOG("expected: %s", reason);
	return (struct th_xfail) { .reason = known ? reason : NULL, .running = true };
}

static inline void th_xfail_end(struct __test_metadata *const _metadata, struct th_xfail *x)
{
	x->running = false;
	if (!x->reason || _metadata->exit_code != KSFT_FAIL)
		return;
	_metadata->exit_code = KSFT_XFAIL;
	snprintf(_metadata->results->reason, sizeof(_metadata->results->reason), "%s", x->reason);
}

/* ---- what the harness knows anyway, or is to do otherwise ---- */

/* A test that has failed, or is an XFAIL, stays that: what could not be done comes after. */
#undef SKIP
#define SKIP(statement, fmt, ...) do {							\
	if (_metadata->exit_code == KSFT_PASS || _metadata->exit_code == KSFT_SKIP) {	\
		snprintf(_metadata->results->reason,					\
			 sizeof(_metadata->results->reason), fmt, ##__VA_ARGS__);	\
		ksft_print_msg("     SKIP      %s\n", _metadata->results->reason);	\
		_metadata->exit_code = KSFT_SKIP;					\
	}										\
	_metadata->trigger = 0;								\
	statement;									\
} while (0)

/* Nor does a library that ends the test as a skip undo a failure; a test ends by _exit(). */
static inline void th_on_exit(int status, void *arg)
{
	struct __test_metadata *const _metadata = arg;

	if (status == KSFT_SKIP && _metadata->exit_code == KSFT_FAIL)
		_exit(KSFT_FAIL);
}

/* To be called first in FIXTURE_SETUP(), with its variant: learn the row's name. */
#define th_begin(variant)	__th_begin(_metadata, variant)

static inline void __th_begin(struct __test_metadata *const _metadata, const void *variant)
{
	struct __fixture_variant_metadata *v = _metadata->fixture->variant;

	while (v && v->data != variant)
		v = v->next;
	snprintf(th_row, sizeof(th_row), "%s%s%s.%s", _metadata->fixture->name,
		 v && v->name[0] ? "." : "", v ? v->name : "", _metadata->name);
	on_exit(th_on_exit, _metadata);
}

#endif /* __KSELFTEST_HARNESS_EXT_H */
