// SPDX-License-Identifier: GPL-2.0-only
/*
 * Sequences of steps that nobody thought of, against a model of the rules.
 *
 * A step is a request for a permission, a fork or a new program, an ioctl of a vCPU, an
 * instruction of its guest, a move to another VM.  Steps are drawn at random, as the
 * model has a meaning for them, and carried out in a process of their own, where
 * each result and all state after it must be as the model has them.  A sequence that
 * fails is shortened, as long as it fails, and told as a list of calls.
 *
 * XSTATE_MODEL_SEED= in the environment draws other ones, XSTATE_MODEL_STEPS= so many of
 * them for each row.  XSTATE_MODEL_FAULT= turns one rule of the model round, by
 * its name in xstate_model.c: a test that does not fail then tests nothing.
 */
#include <limits.h>
#include <time.h>

#include "xstate_steps.h"

#define SEED		1
#define STEPS		1000
/* Steps of a sequence, and seconds to make it short in once it fails */
#define LENGTH		60
#define PATIENCE	5
/* Seconds after which a row has done enough, where nobody asks for more, and that it may take */
#define ENOUGH		5
#define TIMEOUT		600

#define STEPS_VARIABLE	"XSTATE_MODEL_STEPS"

/* ---- what is drawn ---- */

static u64 random_state;

static u32 draw(u32 n)
{
	random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
	return (random_state >> 33) % n;
}

/* One time of @n */
static bool seldom(u32 n)
{
	return !draw(n);
}

/* An index into weights, as often as these say */
static u8 draw_weighted(const u8 *weights, u8 nr)
{
	u32 sum = 0, at;
	u8 i;

	for (i = 0; i < nr; i++)
		sum += weights[i];
	at = draw(sum);
	for (i = 0; at >= weights[i]; i++)
		at -= weights[i];
	return i;
}

/* Some of the components in @all: all, one, or any set of them */
static u64 draw_mask(u64 all)
{
	u64 mask = 0;
	int i;

	switch (draw(4)) {
	case 0:
		return all;
	case 1:
		for (i = draw(64); !(all & BIT_ULL(i)); i = (i + 1) % 64)
			;
		return BIT_ULL(i);
	}
	for (i = 0; i < 64; i++)
		mask |= draw(2) ? all & BIT_ULL(i) : 0;
	return mask;
}

/* AMX is whole, and AVX comes with MXCSR. */
static u64 draw_whole(u64 all)
{
	u64 mask = draw_mask(all);

	if (mask & XFEATURE_MASK_XTILE)
		mask |= XFEATURE_MASK_XTILE;
	return mask & XFEATURE_MASK_YMM ? mask | XFEATURE_MASK_SSE : mask;
}

static u64 draw_number(void)
{
	static const u64 others[] = { 0, 2, 9, 10, 11, 12, 17, 20, 63, 64, BIT_ULL(32) | 18, -1 };

	return seldom(4) ? others[draw(ARRAY_SIZE(others))] : XFEATURE_XTILE_DATA;
}

static u64 draw_xcr0(const struct xm_machine *machine)
{
	static const u64 components[] = {
		XFEATURE_MASK_YMM, XFEATURE_MASK_AVX512, XFEATURE_MASK_PKRU, XFEATURE_MASK_XTILE,
	};
	u64 xcr0 = XFEATURE_MASK_FPSSE;
	u32 i;

	if (seldom(12))
		return XFEATURE_MASK_FP;
	if (draw(2))
		return machine->xcr0 & ~(seldom(3) ? XFEATURE_MASK_XTILE : 0);
	for (i = 0; i < ARRAY_SIZE(components); i++)
		xcr0 |= draw(2) ? components[i] : 0;
	return seldom(4) ? xcr0 ^ BIT_ULL(draw(20)) : xcr0;
}

/* These two have the most to do with others. */
static int draw_msr(void)
{
	return seldom(4) ? XM_XFD : seldom(4) ? XM_XSS : draw(XM_MSRS);
}

/* No value switches anything on. */
static u64 draw_msr_value(int nr)
{
	static const u64 control[] = {
		0, CET_WRSS_EN, CET_NO_TRACK_EN, CET_SUPPRESS, CET_WAIT_ENDBR,
		CET_NO_TRACK_EN | 0x30000000, CET_WRSS_EN | CET_NO_TRACK_EN, BIT_ULL(6),
		CET_SUPPRESS | CET_WAIT_ENDBR | BIT_ULL(9), CET_SUPPRESS | CET_WAIT_ENDBR,
	};
	static const u64 address[] = {
		0, 0x1000, 0x200008, 0x10002004, 0x100000003008, -8ull, 0x1001, 0x1002,
		BIT_ULL(63),
	};

	if (nr > XM_SSP)
		return (seldom(3) ? 0 : nr == XM_XSS ? draw_mask(XFEATURE_MASK_CET) :
						       XFEATURE_MASK_XTILE_DATA) |
		       (seldom(6) ? BIT_ULL(draw(20)) : 0);
	if (nr == I_U_CET || nr == I_S_CET)
		return control[draw(ARRAY_SIZE(control))];
	return address[draw(ARRAY_SIZE(address))];
}

static void draw_insn(const struct xm_machine *machine, struct xm_step *s)
{
	static const u64 loads[] = {
		XFEATURE_MASK_FP, XFEATURE_MASK_SSE, XFEATURE_MASK_SSE | XFEATURE_MASK_YMM,
		XFEATURE_MASK_SSE | XFEATURE_MASK_YMM | XFEATURE_MASK_AVX512,
	};
	static const u8 weights[XM_NR_INSNS] = {
		[XM_LOAD] = 10, [XM_WRPKRU] = 2, [XM_RDPKRU] = 1, [XM_TILES] = 6,
		[XM_TILERELEASE] = 2, [XM_INSN_XSAVE] = 2, [XM_INSN_XSAVEC] = 1,
		[XM_INSN_XSAVES] = 4, [XM_INSN_XRSTOR] = 4, [XM_INSN_XRSTORS] = 4,
		[XM_XSETBV] = 2, [XM_WRMSR] = 10, [XM_RDMSR] = 3, [XM_INSN_CPUID] = 1,
	};
	u64 all = machine->xcr0 | machine->xss;

	s->nr = draw_weighted(weights, XM_NR_INSNS);
	if (s->nr == XM_XSETBV && machine->no_xsetbv)
		s->nr = XM_RDPKRU;
	switch (s->nr) {
	case XM_LOAD:
		s->mask = loads[draw(ARRAY_SIZE(loads))];
		break;
	case XM_INSN_XSAVE:
	case XM_INSN_XSAVEC:
	case XM_INSN_XSAVES:
		s->mask = draw_whole(all);
		break;
	case XM_INSN_XRSTOR:
	case XM_INSN_XRSTORS:
		s->mask = draw_whole(all);
		s->value = draw_whole(XREGS_USER & all) |
			   (s->nr == XM_INSN_XRSTORS && draw(2) ? machine->xss : 0);
		if (draw(2))
			s->value &= ~XFEATURE_MASK_XTILE;
		break;
	case XM_XSETBV:
		s->value = draw_xcr0(machine);
		break;
	case XM_WRMSR:
	case XM_RDMSR:
		s->how = draw_msr();
		s->value = draw_msr_value(s->how);
	}
}

static void draw_vcpu_step(const struct xm_machine *machine, struct xm_step *s)
{
	switch (s->op) {
	case XM_CPUID:
		s->set = draw(XM_KINDS) | XM_KIND(draw(2), NOCET);
		break;
	case XM_SREGS:
		s->how = draw(3);
		s->value = (seldom(8) ? 0 : X86_CR4_OSXSAVE) | (draw(3) ? X86_CR4_PKE : 0) |
			   (draw(2) ? X86_CR4_CET : 0);
		break;
	case XM_XCRS:
		s->value = draw_xcr0(machine);
		break;
	case XM_XSAVE:
		s->mask = draw_whole(XREGS_USER & machine->xcr0) |
			  (seldom(6) ? BIT_ULL(draw(64)) : 0);
		if (draw(2))
			s->mask &= ~XFEATURE_MASK_XTILE_DATA;
		s->how = seldom(4) ? draw(5) : XM_PLAIN;
		if (s->how == XM_BAD_MXCSR)
			s->mask |= XFEATURE_MASK_SSE;
		break;
	case XM_SET_MSR:
		s->nr = draw_msr();
		s->how = s->nr == XM_SSP || seldom(4);
		s->value = draw_msr_value(s->nr);
		break;
	case XM_MOVE:
		s->how = draw(2);
		break;
	case XM_GUEST:
		draw_insn(machine, s);
	}
}

/* Some step of a vCPU, or of the process, whether the model has a meaning for it or not */
static struct xm_step draw_step(const struct xm_machine *machine, u8 op, u8 vcpu)
{
	struct xm_step s = {
		.op = op,
		.vcpu = vcpu,
		.set = draw(XM_SETS),
		.flags = (seldom(6) ? XM_BY_THREAD : 0) | (seldom(8) ? XM_LIVE : 0) |
			 (draw(3) ? XM_JOINED : 0) | (seldom(3) ? XM_LOOK : 0),
	};

	if (s.op == XM_REQUEST) {
		s.how = draw(2);
		s.value = draw_number();
	} else if (s.op == XM_ALTSTACK) {
		s.how = draw(3);
	} else {
		draw_vcpu_step(machine, &s);
	}
	return s;
}

/* What a guest needs first that is to do something */
static u8 needed(const struct xm_vcpu *v, u8 op)
{
	if (op != XM_GUEST)
		return op;
	if (!v->exists)
		return XM_CREATE;
	if (v->kind == XM_NO_CPUID)
		return XM_CPUID;
	if (!v->long_mode)
		return XM_SREGS;
	return v->xcr0 == XFEATURE_MASK_FP && draw(2) ? XM_XCRS : op;
}

/* A list of steps for the model to go through one after the other */
static void draw_steps(struct xs_memory *mem, const u8 *weights)
{
	struct xm_step s = { .op = XM_REQUEST, .how = true, .value = XFEATURE_XTILE_DATA };
	u32 n = 0, tries;
	struct xm m;
	u8 op, vcpu;

	xm_start(&m, &mem->machine);
	/* Two of three begin with the permission. */
	for (tries = seldom(3); n < LENGTH && tries < 100 * LENGTH; tries++) {
		op = draw_weighted(weights, XM_NR_OPS);
		vcpu = seldom(4);
		if (tries)
			s = draw_step(&mem->machine, needed(&m.vcpu[vcpu], op), vcpu);
		if (!xm_allows(&m, &s))
			continue;
		xm_take(&m, &s);
		mem->steps[n++] = s;
	}
	mem->nr_steps = n;
}

/* ---- a sequence that fails is made short ---- */

static time_t patient_until;

/* Whether the steps in @with fail, which then are the list; otherwise it stays as it is. */
static bool still_fails(struct __test_metadata *const _metadata, const struct xm_step *with,
			u32 nr)
{
	struct xs_memory *mem = XS_MEMORY;
	struct xm_step had[XS_MAX_STEPS];
	u32 nr_had = mem->nr_steps;

	if (time(NULL) > patient_until)
		return false;
	memcpy(had, mem->steps, sizeof(had));
	memcpy(mem->steps, with, nr * sizeof(*with));
	mem->nr_steps = nr;
	if (!xs_run(_metadata, true))
		return true;
	memcpy(mem->steps, had, sizeof(had));
	mem->nr_steps = nr_had;
	return false;
}

/* Leave out @size steps at a time, wherever that can be. */
static bool leave_out(struct __test_metadata *const _metadata, u32 size)
{
	struct xs_memory *mem = XS_MEMORY;
	struct xm_step less[XS_MAX_STEPS];
	bool some = false;
	int at;

	for (at = mem->nr_steps - size; at >= 0; at -= size) {
		if (at + size > mem->nr_steps)
			continue;
		memcpy(less, mem->steps, at * sizeof(*less));
		memcpy(less + at, mem->steps + at + size,
		       (mem->nr_steps - at - size) * sizeof(*less));
		some |= still_fails(_metadata, less, mem->nr_steps - size);
	}
	return some;
}

/* Look after each step if that still fails, which is then the sooner. */
static void look_everywhere(struct __test_metadata *const _metadata)
{
	struct xs_memory *mem = XS_MEMORY;
	struct xm_step steps[XS_MAX_STEPS];
	u32 i;

	memcpy(steps, mem->steps, sizeof(steps));
	for (i = 0; i < mem->nr_steps; i++)
		steps[i].flags |= XM_LOOK;
	if (still_fails(_metadata, steps, mem->nr_steps) && mem->at < mem->nr_steps)
		still_fails(_metadata, steps, mem->at + 1);
}

/* Have each step without what it may do without. */
static void simplify(struct __test_metadata *const _metadata)
{
	struct xs_memory *mem = XS_MEMORY;
	struct xm_step steps[XS_MAX_STEPS];
	u32 i, bit;

	for (i = 0; i < mem->nr_steps; i++) {
		for (bit = 1; bit <= XM_LOOK; bit *= 2) {
			memcpy(steps, mem->steps, sizeof(steps));
			steps[i].flags &= ~bit;
			if (mem->steps[i].flags & bit)
				still_fails(_metadata, steps, mem->nr_steps);
		}
	}
}

static void shorten(struct __test_metadata *const _metadata)
{
	struct xs_memory *mem = XS_MEMORY;
	struct xm_step steps[XS_MAX_STEPS];
	u32 size;

	patient_until = time(NULL) + PATIENCE;
	memcpy(steps, mem->steps, sizeof(steps));
	if (mem->at < mem->nr_steps)
		still_fails(_metadata, steps, mem->at + 1);
	look_everywhere(_metadata);
	for (size = mem->nr_steps / 2; size > 1; size /= 2)
		leave_out(_metadata, size);
	while (leave_out(_metadata, 1))
		;
	simplify(_metadata);
}

/* Shorten what has failed, say what it is, and run it once more to say how it fails. */
static void tell(struct __test_metadata *const _metadata)
{
	struct xs_memory *mem = XS_MEMORY;
	u32 i, length = mem->nr_steps;
	char text[2048];

	xs_output(text, sizeof(text));
	shorten(_metadata);
	TH_ROW_LOG("%u of %u steps fail:", mem->nr_steps, length);
	for (i = 0; i < mem->nr_steps; i++)
		ksft_print_msg("  %2u. %s\n", i + 1, xs_describe(&mem->steps[i]));
	if (xs_run(_metadata, false))
		TH_ROW_LOG("and do not, once more; at first:\n%s", text);
	EXPECT_THAT(false, "these steps do not give what the model has");
}

/* ---- rows ---- */

static u32 from_environment(struct __test_metadata *const _metadata, const char *name, u32 value)
{
	const char *text = getenv(name);
	char *end = NULL;

	if (text)
		value = strtoul(text, &end, 0);
	EXPECT_THAT(!text || (*text && !*end), "%s='%s' is no number", name, text);
	return value;
}

FIXTURE(xstate_model) {
	u32 seed, steps;
};

/* How often each step is drawn */
FIXTURE_VARIANT(xstate_model) {
	u8 weights[XM_NR_OPS];
};

FIXTURE_VARIANT_ADD(xstate_model, permissions) { .weights = {
	[XM_REQUEST] = 8, [XM_ALTSTACK] = 3, [XM_SIGNAL] = 3, [XM_USE_AMX] = 3, [XM_OFFERED] = 2,
	[XM_FORK] = 3, [XM_EXEC] = 2, [XM_CREATE] = 2, [XM_DESTROY] = 1, [XM_CPUID] = 5,
	[XM_XSAVE] = 1,
} };
FIXTURE_VARIANT_ADD(xstate_model, cpuid) { .weights = {
	[XM_REQUEST] = 2, [XM_OFFERED] = 1, [XM_CREATE] = 4, [XM_DESTROY] = 3, [XM_CPUID] = 9,
	[XM_SREGS] = 2, [XM_XCRS] = 2, [XM_XSAVE] = 5, [XM_SET_MSR] = 4, [XM_IMMEDIATE] = 1,
	[XM_MOVE] = 1, [XM_GUEST] = 2,
} };
FIXTURE_VARIANT_ADD(xstate_model, ioctls) { .weights = {
	[XM_REQUEST] = 1, [XM_CREATE] = 3, [XM_DESTROY] = 1, [XM_CPUID] = 3, [XM_SREGS] = 4,
	[XM_XCRS] = 5, [XM_XSAVE] = 8, [XM_SET_MSR] = 12, [XM_INIT] = 4, [XM_IMMEDIATE] = 3,
	[XM_PENDING] = 2,
} };
FIXTURE_VARIANT_ADD(xstate_model, guests) { .weights = {
	[XM_REQUEST] = 1, [XM_CREATE] = 4, [XM_DESTROY] = 1, [XM_CPUID] = 4, [XM_SREGS] = 4,
	[XM_XCRS] = 4, [XM_XSAVE] = 2, [XM_SET_MSR] = 4, [XM_INIT] = 1, [XM_PENDING] = 1,
	[XM_GUEST] = 40,
} };
FIXTURE_VARIANT_ADD(xstate_model, moves) { .weights = {
	[XM_REQUEST] = 1, [XM_CREATE] = 4, [XM_DESTROY] = 1, [XM_CPUID] = 5, [XM_SREGS] = 4,
	[XM_XCRS] = 4, [XM_XSAVE] = 6, [XM_SET_MSR] = 6, [XM_MOVE] = 12, [XM_GUEST] = 16,
} };
FIXTURE_VARIANT_ADD(xstate_model, all) { .weights = {
	[XM_REQUEST] = 3, [XM_ALTSTACK] = 1, [XM_SIGNAL] = 2, [XM_USE_AMX] = 2, [XM_OFFERED] = 1,
	[XM_FORK] = 1, [XM_EXEC] = 1, [XM_CREATE] = 5, [XM_DESTROY] = 1, [XM_CPUID] = 5,
	[XM_SREGS] = 5, [XM_XCRS] = 5, [XM_XSAVE] = 6, [XM_SET_MSR] = 8, [XM_INIT] = 2,
	[XM_IMMEDIATE] = 2, [XM_PENDING] = 1, [XM_MOVE] = 3, [XM_GUEST] = 24,
} };

FIXTURE_SETUP(xstate_model)
{
	const char *fault = getenv("XSTATE_MODEL_FAULT");

	xstate_begin_unpermitted(_metadata, variant);
	self->seed = from_environment(_metadata, "XSTATE_MODEL_SEED", SEED);
	self->steps = from_environment(_metadata, STEPS_VARIABLE, STEPS);
	xs_prepare(_metadata);
	if (fault)
		snprintf(XS_MEMORY->machine.fault, sizeof(XS_MEMORY->machine.fault), "%s", fault);
}

FIXTURE_TEARDOWN(xstate_model)
{
	xstate_end(_metadata, NULL);
}

/* Verify that what is drawn from a seed gives, step by step, what the model has. */
TEST_F_TIMEOUT(xstate_model, steps, TIMEOUT)
{
	time_t end = getenv(STEPS_VARIABLE) ? LONG_MAX : time(NULL) + ENOUGH;
	struct xs_memory *mem = XS_MEMORY;
	u32 done = 0;

	random_state = self->seed * 2654435761ull;
	while (done < self->steps && time(NULL) <= end && !_metadata->exit_code) {
		draw_steps(mem, variant->weights);
		done += mem->nr_steps;
		if (!xs_run(_metadata, true))
			tell(_metadata);
	}
	TH_ROW_LOG("XSTATE_MODEL_SEED=%u " STEPS_VARIABLE "=%u", self->seed, done);
	if (mem->machine.fault[0] && !mem->machine.fault_was_asked)
		TH_ROW_LOG("XSTATE_MODEL_FAULT=%s is no rule of these steps", mem->machine.fault);
}

int main(int argc, char **argv)
{
	xs_resume();
	xstate_require(false);
	exit(test_harness_run(argc, argv));
}
