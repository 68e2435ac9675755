/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A check of what a core dump says of the XSAVE state: the registers as they were
 * in NT_X86_XSTATE and, on kernels that write it, NT_X86_XSAVE_LAYOUT.
 */
#ifndef SELFTESTS_X86_XCOMP_FRAME_CORE_H
#define SELFTESTS_X86_XCOMP_FRAME_CORE_H

#include <dirent.h>
#include <sys/resource.h>

#include "xcomp_regs.h"

#define XCOMP_NT_XSAVE_LAYOUT	0x205

/* An ELF file, as far as it takes to find its notes */
#define XCOMP_ELF_PHOFF		32
#define XCOMP_ELF_PHNUM		56
#define XCOMP_ELF_PT_NOTE	4

struct xcomp_segment {
	uint32_t type, flags;
	uint64_t offset, virtual, physical, file_size, size, align;
};

struct xcomp_note {
	uint32_t name_size, size, type;
};

/* A component in NT_X86_XSAVE_LAYOUT */
struct xcomp_layout {
	uint32_t type, size, offset, flags;
};

/* Dump core in the folder that @x says, with a pattern in the registers. */
static inline int xcomp_dump_core(struct xcomp *x)
{
	const struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };

	if (chdir(x->text) || setrlimit(RLIMIT_CORE, &unlimited))
		return xcomp_error(x, "setting up a core dump");
	prctl(PR_SET_DUMPABLE, 1);
	signal(SIGABRT, SIG_DFL);
	xcomp_call_between(xcomp_pattern(), xcomp_area(), SYS_kill, getpid(),
			   SIGABRT);
	return xcomp_error(x, "kill");
}

/* The whole of the only file in @folder, which is removed; NULL if none */
static inline uint8_t *xcomp_take_file(const char *folder, size_t *size)
{
	DIR *dir = opendir(folder);
	uint8_t *content = NULL;
	char path[512] = "";
	struct dirent *d;
	FILE *f;

	while (dir && (d = readdir(dir)))
		if (d->d_name[0] != '.')
			snprintf(path, sizeof(path), "%s/%s", folder,
				 d->d_name);
	if (dir)
		closedir(dir);
	f = fopen(path, "re");
	if (f) {
		fseek(f, 0, SEEK_END);
		*size = ftell(f);
		rewind(f);
		content = malloc(*size);
		if (content && fread(content, 1, *size, f) != *size)
			*size = 0;
		fclose(f);
		unlink(path);
	}
	rmdir(folder);
	return content;
}

/*
 * Nothing but padding follows the notes that the segment of notes says it has, up
 * to where the memory of the process starts.
 */
static inline bool xcomp_notes_are_counted(struct xcomp *x, const uint8_t *core,
					   size_t size)
{
	uint64_t headers = *(uint64_t *)(core + XCOMP_ELF_PHOFF);
	uint64_t end = 0, next = size, at;
	uint16_t i, nr = *(uint16_t *)(core + XCOMP_ELF_PHNUM);
	struct xcomp_segment *s;

	s = (struct xcomp_segment *)(core + headers);
	for (i = 0; i < nr; i++) {
		if (s[i].type == XCOMP_ELF_PT_NOTE)
			end = s[i].offset + s[i].file_size;
		else if (s[i].file_size && s[i].offset < next)
			next = s[i].offset;
	}
	for (at = end; at < next && !core[at]; at++)
		;
	return xcomp_same(x, "end of the padding after the notes", next, at);
}

/* The note of @type in the core dump, NULL if it has none */
static inline uint8_t *xcomp_note(uint8_t *core, size_t size, uint32_t type,
				  uint32_t *len)
{
	uint64_t headers = *(uint64_t *)(core + XCOMP_ELF_PHOFF);
	uint16_t i, nr = *(uint16_t *)(core + XCOMP_ELF_PHNUM);
	struct xcomp_segment *s;
	struct xcomp_note *n;
	uint8_t *at, *end;

	s = (struct xcomp_segment *)(core + headers);
	for (i = 0; i < nr; i++) {
		if (s[i].type != XCOMP_ELF_PT_NOTE ||
		    s[i].offset + s[i].file_size > size)
			continue;
		at = core + s[i].offset;
		end = at + s[i].file_size;
		while (at + sizeof(*n) <= end) {
			n = (struct xcomp_note *)at;
			at += sizeof(*n) + ((n->name_size + 3) & ~3u);
			if (n->type == type) {
				*len = n->size;
				return at + *len <= end ? at : NULL;
			}
			at += (n->size + 3) & ~3u;
		}
	}
	return NULL;
}

/* One record for each user component, and it says what the CPU says */
static inline bool xcomp_layout_is_right(struct xcomp *x, uint8_t *note,
					 uint32_t len)
{
	struct xcomp_layout l;
	uint64_t seen = 0;
	struct xf_regs r;
	bool ok = true;
	uint32_t at;

	for (at = 0; at + sizeof(l) <= len; at += sizeof(l)) {
		memcpy(&l, note + at, sizeof(l));
		if (l.type >= 64)
			return xcomp_same(x, "type in the layout", 0, l.type);
		seen |= XF_BIT(l.type);
		r = xf_cpuid(0xd, l.type);
		ok &= xcomp_same(x, "size in the layout", r.eax, l.size);
		ok &= xcomp_same(x, "offset in the layout", r.ebx, l.offset);
		ok &= xcomp_same(x, "flags in the layout", 0, l.flags);
	}
	return ok & xcomp_same(x, "components in the layout",
			       xf_xcr0() & ~XF_FPSSE, seen);
}

/* Let a child with the permissions of @x dump core, and look at it. */
static inline int xcomp_core(struct xcomp *x)
{
	uint8_t *core, *note;
	size_t size = 0;
	uint64_t mask;
	uint32_t len;
	bool ok, pkru = true;
	int status;
	pid_t pid;

	snprintf(x->text, sizeof(x->text), "/tmp/xcomp_frame.XXXXXX");
	if (!mkdtemp(x->text))
		return xcomp_skip(x, "no folder for a core dump");
	fflush(stdout);
	pid = fork();
	if (!pid)
		_exit(xcomp_dump_core(x));
	waitpid(pid, &status, 0);
	core = xcomp_take_file(x->text, &size);
	if (!WIFSIGNALED(status))
		return KSFT_FAIL;
	if (!WCOREDUMP(status) || !core)
		return xcomp_skip(x, "no core dump was written");

	note = xcomp_note(core, size, XCOMP_NT_XSTATE, &len);
	if (!note) {
		ksft_print_msg("%s: no NT_X86_XSTATE\n", x->name);
		return KSFT_FAIL;
	}
	ok = xcomp_same(x, "size of NT_X86_XSTATE", xf_standard_size(xf_xcr0()),
			len);
	if (ok) {
		memcpy(&mask, note + XCOMP_SW_OFFSET, sizeof(mask));
		ok &= xcomp_same(x, "mask in NT_X86_XSTATE", xf_xcr0(), mask);
		ok &= xcomp_same_state_of(x, xcomp_pattern_mask() &
					  ~XF_BIT(XF_PKRU), "in the core dump",
					  xcomp_pattern(), note);
		pkru = xcomp_same_state_of(x, xcomp_pattern_mask(),
					   "in the core dump", xcomp_pattern(),
					   note);
	}
	ok &= xcomp_notes_are_counted(x, core, size);
	note = xcomp_note(core, size, XCOMP_NT_XSAVE_LAYOUT, &len);
	if (note)
		ok &= xcomp_layout_is_right(x, note, len);
	free(core);
	if (ok && !pkru) {
		x->reason = "PKRU in a core dump is that of the last task switch";
		return KSFT_XFAIL;
	}
	return xcomp_verdict(ok);
}

/*
 * Verify that a core dump has the registers as they were, and the same notes
 * whatever is permitted.
 */
static inline int xcomp_check_core(struct xcomp *x)
{
	int i, result, verdict = KSFT_PASS;
	char pattern[256];

	if (!xf_xcr0())
		return xcomp_skip(x, "no XSAVE");
	if (xf_read_file("/proc/sys/kernel/core_pattern", pattern,
			 sizeof(pattern)) <= 0 || strpbrk(pattern, "|/@"))
		return xcomp_skip(x, "core dumps go elsewhere");

	/*
	 * Nothing, then the guest's permission, then the host's as well. Each
	 * twice: a task switch in time hides that PKRU is an old one.
	 */
	for (i = 0; i < 6; i++) {
		if ((i == 2 || i == 4) && !xcomp_request(x, i == 2))
			return KSFT_FAIL;
		result = xcomp_core(x);
		if (result != KSFT_PASS)
			verdict = result;
		if (result == KSFT_FAIL || result == KSFT_SKIP)
			break;
	}
	xcomp_rule(x, verdict != KSFT_FAIL,
		   "a core dump has the registers, and the same notes whatever is permitted");
	return verdict;
}

#endif /* SELFTESTS_X86_XCOMP_FRAME_CORE_H */
