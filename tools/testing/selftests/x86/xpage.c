// SPDX-License-Identifier: GPL-2.0-only
/*
 * A page that is not there until the kernel asks for it.  Whoever touches it
 * sleeps, and other tasks run, as another thread has to provide the page.
 */
#define _GNU_SOURCE

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

#include "xpage.h"

/* Watch @page, for faults of the kernel too; false where that is forbidden. */
bool xpage_watch(struct xpage *p, uint8_t *page)
{
	struct uffdio_register reg = {
		.range = { (unsigned long)page, XPAGE_SIZE },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	struct uffdio_api api = { .api = UFFD_API };

	p->page = page;
	p->given_back = false;
	p->uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	return p->uffd >= 0 && !ioctl(p->uffd, UFFDIO_API, &api) &&
	       !ioctl(p->uffd, UFFDIO_REGISTER, &reg);
}

/* Keep the content and take the page away; fit for a signal handler. */
void xpage_take_away(struct xpage *p)
{
	memcpy(p->content, p->page, XPAGE_SIZE);
	madvise(p->page, XPAGE_SIZE, MADV_DONTNEED);
}

static void *give_back(void *arg)
{
	struct xpage *p = arg;
	struct uffdio_copy copy = {
		.dst = (unsigned long)p->page,
		.src = (unsigned long)p->content,
		.len = XPAGE_SIZE,
	};
	struct uffd_msg msg;

	if (read(p->uffd, &msg, sizeof(msg)) == sizeof(msg) && msg.event == UFFD_EVENT_PAGEFAULT)
		p->given_back = !ioctl(p->uffd, UFFDIO_COPY, &copy);
	return NULL;
}

/* From now on there is someone to give the page back, once. */
void xpage_wait_for_fault(struct __test_metadata *const _metadata, struct xpage *p)
{
	ASSERT_EQ(0, pthread_create(&p->thread, NULL, give_back, p));
}

/* By now somebody must have had to wait for the page. */
void xpage_expect_fault(struct __test_metadata *const _metadata, struct xpage *p, const char *who)
{
	if (!p->given_back)
		pthread_cancel(p->thread);
	pthread_join(p->thread, NULL);
	close(p->uffd);
	EXPECT_THAT(p->given_back, "%s did not have to wait for memory", who);
}
