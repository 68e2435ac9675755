// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pages that are not there until the kernel asks for them.  Whoever touches one
 * sleeps, and other tasks run, as another thread has to provide the page.  That
 * one has known registers, which nobody else's may get into.
 */
#define _GNU_SOURCE

#include <linux/userfaultfd.h>
#include <sched.h>
#include <sys/ioctl.h>

#include "xpage.h"
#include "xregs.h"

#define THEIR_FILL	0x69

/* Watch @nr pages, for faults of the kernel too; false where that is forbidden. */
bool xpage_watch(struct xpage *p, uint8_t *page, unsigned int nr)
{
	struct uffdio_register reg = {
		.range = { (unsigned long)page, nr * XPAGE_SIZE },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	struct uffdio_api api = { .api = UFFD_API };

	p->page = page;
	p->nr = nr;
	p->content = xf_guarded(nr * XPAGE_SIZE, 0);
	p->given_back = 0;
	p->waits = true;
	p->uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	return p->uffd >= 0 && !ioctl(p->uffd, UFFDIO_API, &api) &&
	       !ioctl(p->uffd, UFFDIO_REGISTER, &reg);
}

/* Keep the content and take the pages away; fit for a signal handler. */
void xpage_take_away(struct xpage *p)
{
	memcpy(p->content, p->page, p->nr * XPAGE_SIZE);
	madvise(p->page, p->nr * XPAGE_SIZE, MADV_DONTNEED);
}

/*
 * Provide the pages.  Known registers are loaded during both system calls, as whoever
 * waits for a page has this CPU then; it is of a class that does not preempt.
 */
static void *give_back(void *arg)
{
	struct xregs *theirs = xregs_pattern(xregs_mask());
	struct xregs *saved[] = { xregs_alloc(), xregs_alloc() };
	const struct sched_param param = { };
	struct uffdio_copy copy = { .len = XPAGE_SIZE };
	struct xpage *p = arg;
	struct __test_metadata *const _metadata = p->metadata;
	struct uffd_msg msg;
	unsigned int i, j;

	sched_setscheduler(0, SCHED_OTHER, &param);
	memset(theirs->xmm, THEIR_FILL, sizeof(theirs->xmm));
	xregs_set(theirs, xregs_mask() & ~XFEATURE_MASK_PKRU, THEIR_FILL);
	for (i = 0; i < p->nr; i++) {
		if (xregs_call_between(theirs, saved[0], SYS_read, p->uffd, (long)&msg,
				       sizeof(msg)) != sizeof(msg) ||
		    msg.event != UFFD_EVENT_PAGEFAULT)
			break;
		for (j = 0; j <= !!i; j++)
			EXPECT_XREGS(xregs_mask(), theirs, saved[j], "of who has the pages");
		copy.dst = msg.arg.pagefault.address & -XPAGE_SIZE;
		copy.src = (unsigned long)p->content + copy.dst - (unsigned long)p->page;
		p->given_back += p->waits;
		if (xregs_call_between(theirs, saved[1], SYS_ioctl, p->uffd, UFFDIO_COPY,
				       (long)&copy))
			break;
	}
	return NULL;
}

/* From now on there is someone to give the pages back, once. */
void xpage_wait_for_fault(struct __test_metadata *const _metadata, struct xpage *p)
{
	const struct sched_param param = { };

	p->metadata = _metadata;
	sched_setscheduler(0, SCHED_BATCH, &param);
	ASSERT_EQ(0, pthread_create(&p->thread, NULL, give_back, p));
}

/* By now somebody must have had to wait for each page. */
void xpage_expect_fault(struct __test_metadata *const _metadata, struct xpage *p, const char *who)
{
	unsigned int i;

	/* The thread ends with the last page, so ask for those that are left. */
	p->waits = false;
	if (p->given_back < p->nr)
		madvise(p->page, p->nr * XPAGE_SIZE, MADV_DONTNEED);
	for (i = p->given_back; i < p->nr; i++)
		p->page[i * XPAGE_SIZE] = 0;
	xf_join_thread(_metadata, p->thread, who);
	close(p->uffd);
	EXPECT_SAME(p->nr, p->given_back, "pages for which %s had to wait", who);
}
