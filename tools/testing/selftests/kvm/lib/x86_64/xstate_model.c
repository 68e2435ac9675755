// SPDX-License-Identifier: GPL-2.0-only
/* The rules of permissions, guest CPUID and extended state: see xstate_model.h. */
#include "xstate_model.h"

/* No kernel has more components; 19 is one of some kernels. */
#define NUMBERS		20

#define TILE_DATA	XFEATURE_MASK_XTILE_DATA

#define RULE(name, holds)	xm_rule(m, #name, holds)

bool xm_rule(const struct xm *m, const char *name, bool holds)
{
	if (!m->machine->fault[0] || strcmp(m->machine->fault, name))
		return holds;
	m->machine->fault_was_asked = true;
	return !holds;
}

/* 0 for SSP, which is no MSR */
u32 xm_msr(int nr)
{
	static const u32 others[] = {
		0, MSR_IA32_XSS, MSR_IA32_XFD, MSR_IA32_XFD_ERR, MSR_IA32_PASID,
	};

	return nr < NR_CET_MSRS ? cet_msrs[nr] : others[nr - NR_CET_MSRS];
}

void xm_start(struct xm *m, struct xm_machine *machine)
{
	*m = (struct xm) { .machine = machine };
}

static struct xm_answer answer(u32 result)
{
	return (struct xm_answer) { .result = result };
}

/* ---- what follows from guest CPUID ---- */

static bool has_amx(const struct xm_vcpu *v)
{
	return v->kind != XM_NO_CPUID && v->kind & 1;
}

static u8 cet_of(const struct xm_vcpu *v)
{
	return v->kind == XM_NO_CPUID ? 0 : v->kind >> 1;
}

static bool has_shstk(const struct xm *m, const struct xm_vcpu *v)
{
	return cet_of(v) & SHSTK && m->machine->shstk;
}

static bool has_ibt(const struct xm *m, const struct xm_vcpu *v)
{
	return cet_of(v) & IBT && m->machine->ibt;
}

static bool has_cet(const struct xm *m, const struct xm_vcpu *v, int nr)
{
	return has_shstk(m, v) || (has_ibt(m, v) && (nr == I_U_CET || nr == I_S_CET));
}

static u64 cpuid_xcr0(const struct xm *m, const struct xm_vcpu *v)
{
	if (v->kind == XM_NO_CPUID)
		return 0;
	return m->machine->xcr0 & ~(has_amx(v) ? 0 : XFEATURE_MASK_XTILE);
}

/* Of the bits that are tried */
static u64 cpuid_cr4(const struct xm *m, const struct xm_vcpu *v)
{
	return X86_CR4_OSXSAVE | (RULE(CR4_PKE, m->machine->pku) ? X86_CR4_PKE : 0) |
	       (RULE(CR4_CET, has_cet(m, v, I_S_CET)) ? X86_CR4_CET : 0);
}

static bool takes_xcr0(const struct xm *m, const struct xm_vcpu *v, u64 xcr0)
{
	return RULE(XCR0_LEGAL, xcr0_is_legal(xcr0)) &&
	       RULE(XCR0_CPUID, !(xcr0 & ~(cpuid_xcr0(m, v) | XFEATURE_MASK_FP)));
}

/* ---- MSRs, and SSP ---- */

/* Values that do no harm, and are unlike in all registers and sets */
u64 xm_cet_value(const struct xm *m, const struct xm_vcpu *v, int nr, int set)
{
	if (!set || !has_cet(m, v, nr))
		return 0;
	if (nr != I_U_CET && nr != I_S_CET)
		return 0x100000000000 + nr * 0x10001000 + set * 0x1008;
	return (has_shstk(m, v) ? CET_WRSS_EN : 0) |
	       (has_ibt(m, v) ? CET_NO_TRACK_EN | (nr + 1) * 0x10000000 | set * 0x4000 : 0);
}

static bool cet_is_valid(const struct xm *m, const struct xm_vcpu *v, int nr, u64 value)
{
	u64 shstk = CET_SHSTK_EN | CET_WRSS_EN, both = CET_SUPPRESS | CET_WAIT_ENDBR;
	u64 end = m->machine->address_end, bits;

	if (nr != I_U_CET && nr != I_S_CET)
		return RULE(MSR_ADDRESS, (value < end || value >= -end) &&
			    (nr == I_TAB || !(value & 3)));
	/* The bitmap is at a multiple of four pages. */
	bits = (has_shstk(m, v) ? shstk : 0) |
	       (has_ibt(m, v) ? ~(shstk | CET_RESERVED | GENMASK_ULL(13, 12)) : 0);
	return RULE(MSR_CONTROL, !(value & ~bits) && (value & both) != both);
}

/* What a vCPU lacks and KVM lists is 0, to be read and written by the host alone. */
static bool is_listed(const struct xm *m, int nr)
{
	return RULE(MSR_LISTED, m->machine->listed & BIT(nr));
}

static bool host_sets(const struct xm *m, const struct xm_vcpu *v, int nr, u64 value)
{
	switch (nr) {
	case XM_XSS:
		return !(value & ~(RULE(MSR_XSS, cet_of(v)) ? m->machine->xss : 0));
	case XM_XFD:
	case XM_XFD_ERR:
		return !(value & ~(RULE(MSR_XFD, has_amx(v)) ? TILE_DATA : 0));
	case XM_PASID:
		return false;
	}
	if (RULE(MSR_CET, has_cet(m, v, nr)))
		return cet_is_valid(m, v, nr, value);
	return is_listed(m, nr) && !value;
}

struct xm_answer xm_read_msr(const struct xm *m, const struct xm_vcpu *v, int nr)
{
	struct xm_answer a = { .read[0] = v->msr[nr] };

	if (nr == XM_PASID)
		a.result = EINVAL;
	else if (nr <= XM_SSP && !has_cet(m, v, nr))
		a = answer(is_listed(m, nr) ? 0 : EINVAL);
	/* The host need not have an MSR that it can set no bit of. */
	a.any = (nr == XM_XSS && !m->machine->xss) || (a.result && m->machine->ignores_msrs);
	return a;
}

static struct xm_answer set_msr(struct xm *m, struct xm_vcpu *v, const struct xm_step *s)
{
	struct xm_answer a = answer(EINVAL);

	v->exact = false;
	a.any = m->machine->ignores_msrs;
	if (!host_sets(m, v, s->nr, s->value))
		return a;
	v->msr[s->nr] = s->value;
	return answer(0);
}

/* ---- sizes and masks ---- */

u32 xm_area_size(const struct xm_vcpu *v)
{
	u32 size = xf_standard_size(xf_xcr0());

	return v->grown && size > sizeof(struct kvm_xsave) ? size : sizeof(struct kvm_xsave);
}

u32 xm_compacted_size(const struct xm *m, const struct xm_vcpu *v)
{
	return xf_compacted_size(v->xcr0 | (RULE(SIZE_XSS, true) ? v->msr[XM_XSS] : 0));
}

u64 xm_offered_xcr0(const struct xm *m)
{
	u64 without = m->machine->half_amx ? TILE_DATA : XFEATURE_MASK_XTILE;

	return m->machine->xcr0 & ~(RULE(OFFERED_AMX, m->guest) ? 0 : without);
}

/* What KVM_GET_XSAVE2 shows of what the fpstate may hold */
u64 xm_shown(const struct xm *m, const struct xm_vcpu *v)
{
	return RULE(XSAVE_HIDES, true) ? cpuid_xcr0(m, v) | XFEATURE_MASK_FPSSE :
					 m->machine->xcr0;
}

/* All components that are not in their initial state */
u64 xm_in_use(const struct xm_vcpu *v)
{
	u64 mask = XREGS_USER & ~v->holds[0] & ~v->unknown;
	int i;

	for (i = 0; i < NR_CET_MSRS; i++)
		if (v->msr[i] && cet_msr_component(cet_msrs[i]) >= 0)
			mask |= BIT_ULL(cet_msr_component(cet_msrs[i]));
	return mask;
}

/* What the registers of the host can be loaded with */
u64 xm_host_mask(const struct xm *m)
{
	return xregs_mask(xf_xcr0()) & ~(m->host ? 0 : XFEATURE_MASK_XTILE);
}

u64 xm_frame_mask(const struct xm *m, const struct xm_step *s)
{
	bool used = s->flags & XM_BY_THREAD ? m->host && s->flags & XM_LIVE : m->used_amx;

	return (xf_xcr0() | XFEATURE_MASK_FPSSE) & ~(RULE(FRAME_DYNAMIC, used) ? 0 : TILE_DATA);
}

/* ---- the process ---- */

static int request(struct xm *m, const struct xm_step *s)
{
	bool guest = s->how, *granted = guest ? &m->guest : &m->host;

	if (!RULE(NUMBER_EXISTS, s->value < NUMBERS))
		return -EINVAL;
	if (!RULE(NUMBER_DYNAMIC, s->value == XFEATURE_XTILE_DATA) || !m->machine->amx)
		return -EOPNOTSUPP;
	if (RULE(REQUEST_REPEATED, *granted))
		return 0;
	if (guest && RULE(REQUEST_LOCKED, m->locked))
		return -EBUSY;
	if (!guest && RULE(REQUEST_ALTSTACK, m->altstack == XM_SMALL_ALTSTACK))
		return -ENOSPC;
	*granted = true;
	return 0;
}

static int set_altstack(struct xm *m, const struct xm_step *s)
{
	if (RULE(ALTSTACK_SIZE, m->host) && s->how == XM_SMALL_ALTSTACK)
		return -ENOMEM;
	m->altstack = s->how;
	return 0;
}

/* A child has a copy of the permissions and of the lock, but no vCPU and no tiles. */
static void fork_child(struct xm *m, const struct xm_step *s)
{
	m->host = m->machine->amx && RULE(FORK_HOST, m->host);
	m->guest = m->machine->amx && RULE(FORK_GUEST, m->guest);
	m->locked = RULE(FORK_LOCK, m->locked);
	m->used_amx = false;
	m->altstack = s->flags & XM_BY_THREAD ? XM_NO_ALTSTACK : m->altstack;
	m->forks++;
	memset(m->vcpu, 0, sizeof(m->vcpu));
}

static void exec_program(struct xm *m)
{
	*m = (struct xm) {
		.machine = m->machine, .forks = m->forks, .execs = m->execs + 1,
		.host = m->host && !RULE(EXEC_HOST, true),
		.guest = m->guest && !RULE(EXEC_GUEST, true),
		.locked = m->locked && !RULE(EXEC_LOCK, true),
	};
}

/* ---- what changes components ---- */

static void put(struct xm_vcpu *v, u64 mask, int set)
{
	int i;

	for (i = 0; i < XM_SETS; i++)
		v->holds[i] &= ~mask;
	v->holds[set] |= mask;
}

/* Those of CET are in MSRs. */
static void set_components(const struct xm *m, struct xm_vcpu *v, u64 mask, int set)
{
	int i, component;

	put(v, mask & XREGS_USER, set);
	for (i = 0; i < NR_CET_MSRS; i++) {
		component = cet_msr_component(cet_msrs[i]);
		if (component >= 0 && mask & BIT_ULL(component))
			v->msr[i] = xm_cet_value(m, v, i, set);
	}
	if (!(mask & TILE_DATA))
		return;
	v->unknown &= ~TILE_DATA;
	v->tiles_touched = true;
}

static void load_fpu(struct xm *m, struct xm_vcpu *v)
{
	v->exact = false;
	v->pkru_shown = m->machine->xcr0 & XFEATURE_MASK_PKRU;
}

static void create(struct xm *m, struct xm_vcpu *v)
{
	*v = (struct xm_vcpu) {
		.exists = true, .exact = true, .kind = XM_NO_CPUID, .xcr0 = XFEATURE_MASK_FP,
		.holds[0] = XREGS_USER,
	};
	m->locked = true;
}

/* The larger fpstate that comes with AMX is a new one, but for PKRU, which KVM keeps. */
static int set_cpuid(struct xm *m, struct xm_vcpu *v, int kind)
{
	struct xm_vcpu next = *v;

	next.kind = kind;
	if (RULE(CPUID_AFTER_RUN, v->ran))
		return kind == v->kind ? 0 : -EINVAL;
	if (has_amx(&next) && !RULE(CPUID_PERMISSION, m->guest))
		return -EPERM;
	v->kind = kind;
	if (!has_amx(v) || v->grown)
		return 0;
	v->grown = RULE(SIZE_GROWS, true);
	if (RULE(CPUID_DROPS, m->machine->drops_fpstate)) {
		set_components(m, v, XREGS_ALL & ~XFEATURE_MASK_PKRU, 0);
		v->tiles_touched = false;
		v->exact = true;
		v->bv = 0;
		v->pkru_shown = false;
	}
	return 0;
}

static int set_xsave(struct xm *m, struct xm_vcpu *v, const struct xm_step *s)
{
	u64 disarmed = RULE(XSAVE_DISARMED, v->msr[XM_XFD]) ? TILE_DATA : 0;
	bool pkru = s->mask & XFEATURE_MASK_PKRU;

	if (s->how == XM_SHORT)
		return -EFAULT;
	if (RULE(XSAVE_UNKNOWN, s->mask & ~(m->machine->xcr0 | XFEATURE_MASK_FPSSE)) ||
	    RULE(XSAVE_RESERVED, s->how != XM_PLAIN) ||
	    (s->mask & TILE_DATA && !RULE(XSAVE_NEEDS_CPUID, v->grown)))
		return -EINVAL;
	if (RULE(XSAVE_INITIAL, true))
		put(v, XREGS_USER & ~XFEATURE_MASK_PKRU, 0);
	if (!pkru && !RULE(XSAVE_KEEPS_PKRU, true))
		put(v, XFEATURE_MASK_PKRU, 0);
	v->bv = s->mask & ~disarmed;
	put(v, v->bv & XREGS_USER, s->set);
	v->unknown = 0;
	v->exact = true;
	v->pkru_shown = pkru;
	v->tiles_touched = s->mask & TILE_DATA;
	return 0;
}

static int set_sregs(struct xm *m, struct xm_vcpu *v, const struct xm_step *s)
{
	if (s->how == XM_BY_RUN)
		load_fpu(m, v);
	if (s->value & ~cpuid_cr4(m, v))
		return -EINVAL;
	v->cr4 = s->value;
	v->long_mode = true;
	return 0;
}

/* INIT is for CET, and spares all other extended state and XCR0, XSS and XFD. */
static void take_init(struct xm *m, struct xm_vcpu *v)
{
	bool half = RULE(INIT_ELSEWHERE, m->machine->init_is_half);
	u64 spared = RULE(INIT_SPARES, true) ? XREGS_USER : 0;

	set_components(m, v, RULE(INIT_CET, true) ? XREGS_ALL & ~spared : 0, 0);
	if (!half) {
		v->msr[I_S_CET] = 0;
		v->msr[I_TAB] = 0;
		v->msr[XM_SSP] = 0;
	}
	v->cr4 = 0;
	v->long_mode = false;
	v->exact = false;
}

/* All that can be read is there, in a vCPU that has not run. */
static void move(struct xm *m, struct xm_vcpu *v)
{
	load_fpu(m, v);
	v->grown = has_amx(v);
	v->ran = false;
}

/* ---- instructions of guests ---- */

u64 xm_saved(const struct xm *m, const struct xm_vcpu *v, const struct xm_step *s)
{
	bool supervisor = s->nr == XM_INSN_XSAVES && RULE(XSAVES_XSS, true);

	return s->mask & (v->xcr0 | (supervisor ? v->msr[XM_XSS] : 0));
}

static u32 disarmed(struct xm_vcpu *v)
{
	v->msr[XM_XFD_ERR] = TILE_DATA;
	return NM_VECTOR;
}

/* LDTILECFG is never disarmed, and clears all tiles. */
static u32 guest_tiles(struct xm *m, struct xm_vcpu *v, const struct xm_step *s)
{
	if (!RULE(GUEST_XTILE, v->xcr0 & TILE_DATA))
		return UD_VECTOR;
	if (s->nr == XM_TILES || RULE(GUEST_RELEASE, true))
		set_components(m, v, XFEATURE_MASK_XTILE, s->nr == XM_TILES ? s->set : 0);
	if (s->nr == XM_TILERELEASE || !RULE(GUEST_XFD, v->msr[XM_XFD]))
		return 0;
	v->unknown |= TILE_DATA;
	return disarmed(v);
}

static u32 guest_restore(struct xm *m, struct xm_vcpu *v, const struct xm_step *s)
{
	u64 enabled = v->xcr0 | (s->nr == XM_INSN_XRSTORS ? v->msr[XM_XSS] : 0);
	u64 mask = s->mask & enabled;

	if (RULE(XRSTOR_REFUSED, s->value & ~enabled))
		return GP_VECTOR;
	if (v->msr[XM_XFD] & mask & s->value)
		return disarmed(v);
	if (RULE(XRSTOR_INITIAL, true))
		set_components(m, v, mask & ~s->value, 0);
	set_components(m, v, mask & s->value, s->set);
	return 0;
}

/* AVX instructions clear what is beyond their registers. */
static void guest_load(struct xm *m, struct xm_vcpu *v, const struct xm_step *s)
{
	set_components(m, v, s->mask, s->set);
	if (s->mask & XFEATURE_MASK_YMM && !(s->mask & XFEATURE_MASK_ZMM_Hi256) &&
	    RULE(GUEST_AVX_CLEARS, true))
		set_components(m, v, XFEATURE_MASK_ZMM_Hi256, 0);
}

static bool guest_has_msr(const struct xm *m, const struct xm_vcpu *v, int nr)
{
	switch (nr) {
	case XM_XSS:
		return RULE(GUEST_HAS_XSS, m->machine->xsaves);
	case XM_XFD:
	case XM_XFD_ERR:
		return RULE(GUEST_HAS_XFD, m->machine->xfd);
	case XM_PASID:
		return false;
	}
	return RULE(GUEST_HAS_CET, has_cet(m, v, nr));
}

static struct xm_answer guest_msr(struct xm *m, struct xm_vcpu *v, const struct xm_step *s)
{
	struct xm_answer a = answer(GP_VECTOR);

	a.any = m->machine->ignores_msrs;
	if (!guest_has_msr(m, v, s->how) ||
	    (s->nr == XM_WRMSR && !host_sets(m, v, s->how, s->value)))
		return a;
	if (s->nr == XM_WRMSR)
		v->msr[s->how] = s->value;
	/* Tile data that is disarmed may be gone, or come back. */
	if (v->msr[XM_XFD] && xm_in_use(v) & TILE_DATA)
		v->unknown |= TILE_DATA;
	a = answer(0);
	a.read[0] = v->msr[s->how];
	return a;
}

static u32 guest_pkru(struct xm *m, struct xm_vcpu *v, const struct xm_step *s)
{
	if (!RULE(GUEST_PKE, v->cr4 & X86_CR4_PKE))
		return UD_VECTOR;
	if (s->nr == XM_WRPKRU)
		put(v, XFEATURE_MASK_PKRU, s->set);
	return 0;
}

static struct xm_answer guest(struct xm *m, struct xm_vcpu *v, const struct xm_step *s)
{
	struct xm_answer a = answer(0);

	load_fpu(m, v);
	v->ran = true;
	switch (s->nr) {
	case XM_WRMSR:
	case XM_RDMSR:
		return guest_msr(m, v, s);
	case XM_WRPKRU:
	case XM_RDPKRU:
		return answer(guest_pkru(m, v, s));
	case XM_INSN_CPUID:
		a.read[0] = xf_standard_size(v->xcr0) | (v->cr4 & ~X86_CR4_CET) << 32;
		a.read[1] = xm_compacted_size(m, v);
		return a;
	}
	if (!RULE(GUEST_OSXSAVE, v->cr4 & X86_CR4_OSXSAVE))
		return answer(UD_VECTOR);
	switch (s->nr) {
	case XM_LOAD:
		guest_load(m, v, s);
		break;
	case XM_TILES:
	case XM_TILERELEASE:
		return answer(guest_tiles(m, v, s));
	case XM_INSN_XRSTOR:
	case XM_INSN_XRSTORS:
		return answer(guest_restore(m, v, s));
	case XM_XSETBV:
		if (!takes_xcr0(m, v, s->value))
			return answer(GP_VECTOR);
		if (!m->machine->no_xsetbv)
			v->xcr0 = s->value;
	}
	return a;
}

/* ---- what is promised at all ---- */

/* Half of AMX, and AVX without MXCSR, are for other tests. */
static bool is_whole(u64 mask)
{
	u64 xtile = mask & XFEATURE_MASK_XTILE;

	return (!xtile || xtile == XFEATURE_MASK_XTILE) &&
	       (!(mask & XFEATURE_MASK_YMM) || mask & XFEATURE_MASK_SSE);
}

/* XCR0 may go without tiles only where there are none. */
static bool allows_xcr0(const struct xm_vcpu *v, u64 xcr0)
{
	return xcr0 & TILE_DATA || !((v->unknown | ~v->holds[0]) & TILE_DATA);
}

/* Nothing is said of what a vCPU has and its next CPUID has not. */
static bool allows_cpuid(const struct xm *m, const struct xm_vcpu *v, int kind)
{
	struct xm scratch = *m;
	struct xm_vcpu next = *v;
	int i;

	if (set_cpuid(&scratch, &next, kind) || kind == v->kind)
		return true;
	for (i = 0; i < XM_MSRS; i++)
		if (v->msr[i] && !host_sets(m, &next, i, v->msr[i]))
			return false;
	return !(v->xcr0 & ~(cpuid_xcr0(m, &next) | XFEATURE_MASK_FP)) &&
	       !(v->cr4 & ~cpuid_cr4(m, &next)) && (has_amx(&next) || !v->tiles_touched);
}

/*
 * IA32_XFD must never disarm tiles that are in memory: the next load of the guest's FPU
 * would be a fault of the host.
 */
static bool allows_set_msr(const struct xm *m, const struct xm_vcpu *v, const struct xm_step *s)
{
	if (s->nr == XM_XFD && s->value && v->tiles_touched)
		return false;
	if (s->nr == XM_XSS && !m->machine->xss && !s->value)
		return false;
	return s->how ? m->machine->one_reg : s->nr != XM_SSP;
}

/* With one half of CET, a CPU lets the guest set what belongs to the other one. */
static bool allows_guest_msr(const struct xm *m, const struct xm_vcpu *v, const struct xm_step *s)
{
	if ((s->how != I_U_CET && s->how != I_S_CET) || !has_cet(m, v, s->how))
		return s->how != XM_SSP;
	return s->value & (CET_RESERVED | BIT_ULL(63)) || cet_is_valid(m, v, s->how, s->value);
}

static bool allows_guest(const struct xm *m, const struct xm_vcpu *v, const struct xm_step *s)
{
	if (!v->long_mode)
		return false;
	switch (s->nr) {
	case XM_LOAD:
		return s->set && v->cr4 & X86_CR4_OSXSAVE && !(s->mask & ~v->xcr0);
	case XM_TILES:
		return s->set;
	case XM_INSN_XSAVEC:
		return m->machine->xsavec;
	case XM_INSN_XRSTOR:
	case XM_INSN_XRSTORS:
		/* Whether it is #NM for tiles that it makes initial, is up to the CPU. */
		return is_whole(s->mask) && is_whole(s->value) &&
		       !(v->msr[XM_XFD] & s->mask & ~s->value) &&
		       (s->nr == XM_INSN_XRSTOR || m->machine->xsaves);
	case XM_INSN_XSAVES:
		return m->machine->xsaves;
	case XM_XSETBV:
		return allows_xcr0(v, s->value);
	case XM_WRMSR:
	case XM_RDMSR:
		return allows_guest_msr(m, v, s);
	}
	return true;
}

bool xm_allows(const struct xm *m, const struct xm_step *s)
{
	const struct xm_vcpu *v = &m->vcpu[s->vcpu];
	bool create = s->op == XM_CREATE;

	if (s->op >= XM_CREATE && v->exists == create)
		return false;
	switch (s->op) {
	case XM_ALTSTACK:
		return !(s->flags & XM_BY_THREAD);
	case XM_FORK:
		return m->forks < 2;
	case XM_EXEC:
		return m->execs < 2;
	case XM_CPUID:
		return allows_cpuid(m, v, s->set);
	case XM_SREGS:
		return v->kind != XM_NO_CPUID && (s->how != XM_BY_SREGS2 || m->machine->sregs2) &&
		       (s->how != XM_BY_RUN || m->machine->run_sregs);
	case XM_XCRS:
		return allows_xcr0(v, s->value);
	case XM_XSAVE:
		/* A larger fpstate still has room for tiles when CPUID has lost them. */
		return is_whole(s->mask & ~(v->grown ? 0 : XFEATURE_MASK_XTILE)) &&
		       (!(s->mask & XFEATURE_MASK_XTILE) || v->grown == has_amx(v));
	case XM_SET_MSR:
		return allows_set_msr(m, v, s);
	case XM_PENDING:
		return v->long_mode;
	case XM_MOVE:
		return v->kind != XM_NO_CPUID && !(v->msr[XM_XFD] && v->tiles_touched) &&
		       !v->unknown;
	case XM_GUEST:
		return allows_guest(m, v, s);
	}
	return true;
}

static struct xm_answer take_vcpu(struct xm *m, struct xm_vcpu *v, const struct xm_step *s)
{
	switch (s->op) {
	case XM_CREATE:
		create(m, v);
		break;
	case XM_DESTROY:
		v->exists = false;
		break;
	case XM_CPUID:
		return answer(-set_cpuid(m, v, s->set));
	case XM_SREGS:
		return answer(-set_sregs(m, v, s));
	case XM_XCRS:
		if (!takes_xcr0(m, v, s->value))
			return answer(EINVAL);
		v->xcr0 = s->value;
		break;
	case XM_XSAVE:
		return answer(-set_xsave(m, v, s));
	case XM_SET_MSR:
		return set_msr(m, v, s);
	case XM_INIT:
		take_init(m, v);
		break;
	case XM_IMMEDIATE:
	case XM_PENDING:
		load_fpu(m, v);
		return answer(EINTR);
	case XM_MOVE:
		move(m, v);
		break;
	case XM_GUEST:
		return guest(m, v, s);
	}
	return answer(0);
}

struct xm_answer xm_take(struct xm *m, const struct xm_step *s)
{
	bool live = s->op == XM_USE_AMX || s->flags & XM_LIVE;

	/* Steps that make no call with registers in use are before XM_CPUID. */
	if (s->op == XM_SIGNAL || s->op == XM_USE_AMX || s->op >= XM_CPUID)
		m->used_amx |= m->host && live && !(s->flags & XM_BY_THREAD);
	switch (s->op) {
	case XM_REQUEST:
		return answer(-request(m, s));
	case XM_ALTSTACK:
		return answer(-set_altstack(m, s));
	case XM_USE_AMX:
		return answer(RULE(AMX_NEEDS_PERMISSION, m->host) ? 0 : SIGILL);
	case XM_FORK:
		fork_child(m, s);
		break;
	case XM_EXEC:
		exec_program(m);
		break;
	}
	return take_vcpu(m, &m->vcpu[s->vcpu], s);
}
