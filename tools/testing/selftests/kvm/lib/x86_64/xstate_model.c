// SPDX-License-Identifier: GPL-2.0-only
/* The rules of permissions, guest CPUID and extended state: see xstate_model.h. */
#include "xstate_model.h"

#ifndef X86_CR4_PKE
#define X86_CR4_PKE		BIT(22)
#endif

/* Above this, no kernel has a component; 19 is one of some kernels. */
#define NUMBERS			20

#define TILE_CFG		XFEATURE_MASK_XTILE_CFG
#define TILE_DATA		XFEATURE_MASK_XTILE_DATA

#define XM_STRING(name)		#name,
const char * const xm_rule_names[XM_NR_RULES] = { XM_RULES(XM_STRING) };

#define RULE(name, holds)	xm_rule(m, XM_##name, holds)

bool xm_rule(const struct xm *m, enum xm_rule rule, bool holds)
{
	return holds != (m->machine->fault == rule);
}

u32 xm_msr(int nr)
{
	static const u32 others[] = {
		MSR_IA32_XSS, MSR_IA32_XFD, MSR_IA32_XFD_ERR, MSR_IA32_PASID,
	};

	return nr < NR_CET_MSRS ? cet_msrs[nr] : others[nr - NR_CET_MSRS];
}

void xm_start(struct xm *m, const struct xm_machine *machine)
{
	*m = (struct xm) { .machine = machine };
}

static struct xm_answer answer(u32 result)
{
	return (struct xm_answer) { .result = result };
}

/* ---- what follows from guest CPUID ---- */

bool xm_kind_amx(int kind)
{
	return kind != XM_NO_CPUID && kind & 1;
}

static u8 kind_cet(int kind)
{
	return kind == XM_NO_CPUID ? 0 : kind >> 1;
}

static u64 kind_xcr0(const struct xm *m, int kind)
{
	if (kind == XM_NO_CPUID)
		return 0;
	return m->machine->xcr0 & ~(xm_kind_amx(kind) ? 0 : XFEATURE_MASK_XTILE);
}

static u64 kind_xss(const struct xm *m, int kind)
{
	return kind_cet(kind) ? m->machine->xss : 0;
}

static u64 kind_xfd(int kind)
{
	return xm_kind_amx(kind) ? TILE_DATA : 0;
}

static bool kind_shstk(const struct xm *m, int kind)
{
	return kind_cet(kind) & SHSTK && m->machine->shstk;
}

static bool kind_ibt(const struct xm *m, int kind)
{
	return kind_cet(kind) & IBT && m->machine->ibt;
}

static bool kind_msr(const struct xm *m, int kind, int nr)
{
	if (nr == I_U_CET || nr == I_S_CET)
		return kind_shstk(m, kind) || kind_ibt(m, kind);
	return kind_shstk(m, kind);
}

bool xm_has_shstk(const struct xm *m, const struct xm_vcpu *v)
{
	return kind_shstk(m, v->kind);
}

bool xm_has_ibt(const struct xm *m, const struct xm_vcpu *v)
{
	return kind_ibt(m, v->kind);
}

/* Bits of CR4 of those that are tried */
static u64 kind_cr4(const struct xm *m, int kind)
{
	u64 cr4 = X86_CR4_OSXSAVE;

	if (RULE(CR4_PKE, m->machine->pku))
		cr4 |= X86_CR4_PKE;
	if (RULE(CR4_CET, kind_shstk(m, kind) || kind_ibt(m, kind)))
		cr4 |= X86_CR4_CET;
	return cr4;
}

/* Harmless values that are unlike in all registers of all sets */
u64 xm_cet_value(const struct xm *m, const struct xm_vcpu *v, int nr, int set)
{
	if (!set || !kind_msr(m, v->kind, nr))
		return 0;
	if (nr != I_U_CET && nr != I_S_CET)
		return 0x100000000000 + nr * 0x10001000 + set * 0x1008;
	return (xm_has_shstk(m, v) ? CET_WRSS_EN : 0) |
	       (xm_has_ibt(m, v) ? CET_NO_TRACK_EN | (nr + 1) * 0x10000000 | set * 0x4000 : 0);
}

/* ---- sizes and what is shown ---- */

u32 xm_area_size(const struct xm_vcpu *v)
{
	u32 size = xf_standard_size(xf_xcr0());

	return v->grown && size > sizeof(struct kvm_xsave) ? size : sizeof(struct kvm_xsave);
}

u32 xm_compacted_size(const struct xm *m, const struct xm_vcpu *v)
{
	return xf_compacted_size(v->xcr0 | (RULE(SIZE_XSS, true) ? v->msr[XM_XSS] : 0));
}

/* What KVM_GET_XSAVE2 may show of what the fpstate holds */
u64 xm_shown(const struct xm *m, const struct xm_vcpu *v)
{
	if (RULE(XSAVE_HIDES, true))
		return kind_xcr0(m, v->kind) | XFEATURE_MASK_FPSSE;
	return m->machine->xcr0;
}

/* All components that are not in their initial state */
u64 xm_in_use(const struct xm_vcpu *v)
{
	u64 mask = 0;
	int i;

	for (i = 0; i < XM_COMPONENTS; i++)
		mask |= v->set[i] ? BIT_ULL(i) : 0;
	for (i = 0; i < NR_CET_MSRS; i++)
		if (v->msr[i] && cet_msr_component(cet_msrs[i]) >= 0)
			mask |= BIT_ULL(cet_msr_component(cet_msrs[i]));
	return mask & ~v->unknown;
}

u64 xm_offered_xcr0(const struct xm *m)
{
	u64 xcr0 = m->machine->xcr0;

	if (!RULE(OFFERED_AMX, m->guest))
		xcr0 &= ~(m->machine->half_amx ? TILE_DATA : XFEATURE_MASK_XTILE);
	return xcr0;
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

static u32 request(struct xm *m, const struct xm_step *s)
{
	bool guest = s->how, *granted = guest ? &m->guest : &m->host;

	if (!RULE(NUMBER_EXISTS, s->value < NUMBERS))
		return EINVAL;
	if (!RULE(NUMBER_DYNAMIC, s->value == XFEATURE_XTILE_DATA) || !m->machine->amx)
		return EOPNOTSUPP;
	if (RULE(REQUEST_REPEATED, *granted))
		return 0;
	if (guest && RULE(REQUEST_LOCKED, m->locked))
		return EBUSY;
	if (!guest && RULE(REQUEST_ALTSTACK, m->altstack == XM_SMALL_ALTSTACK))
		return ENOSPC;
	*granted = true;
	return 0;
}

static u32 altstack(struct xm *m, const struct xm_step *s)
{
	if (RULE(ALTSTACK_SIZE, m->host) && s->how == XM_SMALL_ALTSTACK)
		return ENOMEM;
	m->altstack = s->how;
	return 0;
}

static void lose_vcpus(struct xm *m)
{
	int i;

	for (i = 0; i < XM_VCPUS; i++)
		m->vcpu[i].exists = false;
}

/* A child has a copy of the permissions and of the lock, but no vCPU and no tiles. */
static void fork_child(struct xm *m, const struct xm_step *s)
{
	m->host = m->machine->amx && RULE(FORK_HOST, m->host);
	m->guest = m->machine->amx && RULE(FORK_GUEST, m->guest);
	m->locked = RULE(FORK_LOCK, m->locked);
	m->used_amx = false;
	m->forks++;
	if (s->flags & XM_BY_THREAD)
		m->altstack = XM_NO_ALTSTACK;
	lose_vcpus(m);
}

static void exec_program(struct xm *m)
{
	m->host = !RULE(EXEC_HOST, true) && m->host;
	m->guest = !RULE(EXEC_GUEST, true) && m->guest;
	m->locked = !RULE(EXEC_LOCK, true) && m->locked;
	m->used_amx = false;
	m->altstack = XM_NO_ALTSTACK;
	m->execs++;
	lose_vcpus(m);
}

/* ---- vCPUs: CPUID ---- */

static void create(struct xm *m, struct xm_vcpu *v)
{
	*v = (struct xm_vcpu) {
		.exists = true, .exact = true, .kind = XM_NO_CPUID, .xcr0 = XFEATURE_MASK_FP,
	};
	m->locked = true;
}

/* The larger fpstate that comes with AMX is a new one. */
static void grow(struct xm *m, struct xm_vcpu *v)
{
	int i;

	v->grown = RULE(SIZE_GROWS, true);
	if (!RULE(CPUID_DROPS, m->machine->drops_fpstate))
		return;
	for (i = 0; i < XM_COMPONENTS; i++)
		if (i != XFEATURE_PKRU)
			v->set[i] = 0;
	for (i = 0; i < NR_CET_MSRS; i++)
		if (cet_msr_component(cet_msrs[i]) >= 0)
			v->msr[i] = 0;
	v->exact = true;
	v->bv = 0;
	v->pkru_shown = false;
}

static u32 set_cpuid(struct xm *m, struct xm_vcpu *v, int kind)
{
	if (RULE(CPUID_AFTER_RUN, v->ran))
		return kind == v->kind ? 0 : EINVAL;
	if (xm_kind_amx(kind) && !RULE(CPUID_PERMISSION, m->guest))
		return EPERM;
	v->kind = kind;
	if (xm_kind_amx(kind) && !v->grown)
		grow(m, v);
	return 0;
}

/* What the vCPU has can stay: nothing is said of what its CPUID takes away from it. */
static bool cpuid_fits(const struct xm *m, const struct xm_vcpu *v, int kind)
{
	bool less = kind_shstk(m, v->kind) > kind_shstk(m, kind) ||
		    kind_ibt(m, v->kind) > kind_ibt(m, kind);
	int i;

	for (i = 0; i < NR_CET_MSRS; i++)
		if (less && v->msr[i])
			return false;
	return !(less && v->ssp) && !(v->xcr0 & ~(kind_xcr0(m, kind) | XFEATURE_MASK_FP)) &&
	       !(v->msr[XM_XSS] & ~kind_xss(m, kind)) &&
	       !((v->msr[XM_XFD] | v->msr[XM_XFD_ERR]) & ~kind_xfd(kind)) &&
	       !(v->cr4 & ~kind_cr4(m, kind)) && (xm_kind_amx(kind) || !v->tiles_touched);
}

/* ---- vCPUs: XSAVE state ---- */

static u32 set_xsave(struct xm *m, struct xm_vcpu *v, const struct xm_step *s)
{
	bool pkru = s->mask & XFEATURE_MASK_PKRU;
	int i;

	if (s->how == XM_SHORT)
		return EFAULT;
	if (RULE(XSAVE_UNKNOWN, s->mask & ~(m->machine->xcr0 | XFEATURE_MASK_FPSSE)))
		return EINVAL;
	if (RULE(XSAVE_RESERVED, s->how >= XM_XCOMP_BV))
		return EINVAL;
	if (s->mask & TILE_DATA && !RULE(XSAVE_NEEDS_CPUID, v->grown))
		return EINVAL;
	for (i = 0; i < XM_COMPONENTS; i++) {
		if (!(XREGS_USER & BIT_ULL(i)))
			continue;
		if (i == XFEATURE_PKRU && !pkru && RULE(XSAVE_KEEPS_PKRU, true))
			continue;
		if (s->mask & BIT_ULL(i))
			v->set[i] = s->set;
		else if (RULE(XSAVE_INITIAL, true))
			v->set[i] = 0;
	}
	if (RULE(XSAVE_DISARMED, v->msr[XM_XFD] & TILE_DATA))
		v->set[XFEATURE_XTILE_DATA] = 0;
	v->unknown = 0;
	v->exact = true;
	v->bv = s->mask & ~(v->msr[XM_XFD] & TILE_DATA);
	v->pkru_shown = pkru;
	v->tiles_touched = s->mask & TILE_DATA;
	return 0;
}

/* ---- vCPUs: XCR0, MSRs, CR4 ---- */

u64 xm_cpuid_xcr0(const struct xm *m, const struct xm_vcpu *v)
{
	return kind_xcr0(m, v->kind);
}

static bool takes_xcr0(const struct xm *m, const struct xm_vcpu *v, u64 xcr0)
{
	return RULE(XCR0_LEGAL, xcr0_is_legal(xcr0)) &&
	       RULE(XCR0_CPUID, !(xcr0 & ~(kind_xcr0(m, v->kind) | XFEATURE_MASK_FP)));
}

static bool is_canonical(const struct xm *m, u64 address)
{
	return address < m->machine->address_end || address >= -m->machine->address_end;
}

/* A value of a CET MSR that the vCPU has */
static bool cet_value_is_valid(const struct xm *m, const struct xm_vcpu *v, int nr, u64 value)
{
	u64 shstk = CET_SHSTK_EN | CET_WRSS_EN, bits;

	if (nr != I_U_CET && nr != I_S_CET)
		return RULE(MSR_ADDRESS, is_canonical(m, value) && (nr == I_TAB || !(value & 3)));
	bits = (xm_has_shstk(m, v) ? shstk : 0) |
	       (xm_has_ibt(m, v) ? ~(shstk | CET_RESERVED | GENMASK_ULL(13, 12)) : 0);
	return RULE(MSR_CONTROL, !(value & ~bits) &&
		    (value & (CET_SUPPRESS | CET_WAIT_ENDBR)) != (CET_SUPPRESS | CET_WAIT_ENDBR));
}

static bool is_listed(const struct xm *m, int nr)
{
	return RULE(MSR_LISTED, m->machine->listed & BIT(nr));
}

/* The host reads the MSR, or sets it to @value: one that the vCPU lacks to 0 alone. */
static bool host_reads(const struct xm *m, const struct xm_vcpu *v, int nr)
{
	if (nr < NR_CET_MSRS)
		return RULE(MSR_CET, kind_msr(m, v->kind, nr)) || is_listed(m, nr);
	return nr != XM_PASID;
}

static bool host_sets(const struct xm *m, const struct xm_vcpu *v, int nr, u64 value)
{
	if (nr < NR_CET_MSRS && RULE(MSR_CET, kind_msr(m, v->kind, nr)))
		return cet_value_is_valid(m, v, nr, value);
	switch (nr) {
	case XM_XSS:
		return !(value & ~(RULE(MSR_XSS, true) ? kind_xss(m, v->kind) : ~0ull));
	case XM_XFD:
	case XM_XFD_ERR:
		return !(value & ~(RULE(MSR_XFD, true) ? kind_xfd(v->kind) : ~0ull));
	case XM_PASID:
		return false;
	}
	return is_listed(m, nr) && !value;
}

static u64 read_msr(const struct xm *m, const struct xm_vcpu *v, int nr)
{
	return nr < NR_CET_MSRS && !kind_msr(m, v->kind, nr) ? 0 : v->msr[nr];
}

static struct xm_answer host_msr(struct xm *m, struct xm_vcpu *v, const struct xm_step *s)
{
	bool set = s->op == XM_SET_MSR, taken;
	struct xm_answer a;

	taken = set ? host_sets(m, v, s->nr, s->value) : host_reads(m, v, s->nr);
	a = answer(taken ? 0 : EINVAL);
	a.any_result = !taken && m->machine->ignores_msrs;
	if (taken && set)
		v->msr[s->nr] = s->value;
	if (taken)
		a.read[0] = read_msr(m, v, s->nr);
	v->exact = false;
	return a;
}

static u32 set_ssp(struct xm *m, struct xm_vcpu *v, u64 ssp)
{
	if (!RULE(SSP_EXISTS, xm_has_shstk(m, v)) ||
	    !RULE(SSP_VALUE, is_canonical(m, ssp) && !(ssp & 3)))
		return EINVAL;
	v->ssp = ssp;
	return 0;
}

static u32 set_sregs(struct xm *m, struct xm_vcpu *v, u64 cr4)
{
	if (cr4 & ~kind_cr4(m, v->kind))
		return EINVAL;
	v->cr4 = cr4;
	v->long_mode = true;
	return 0;
}

/* INIT is for CET, and spares all other extended state and XCR0, XSS and XFD. */
static void take_init(struct xm *m, struct xm_vcpu *v)
{
	int i;

	for (i = 0; i < NR_CET_MSRS; i++) {
		if (cet_msr_component(cet_msrs[i]) < 0) {
			if (!RULE(INIT_ELSEWHERE, m->machine->init_is_half))
				v->msr[i] = 0;
		} else if (RULE(INIT_CET, true)) {
			v->msr[i] = 0;
		}
	}
	if (!RULE(INIT_ELSEWHERE, m->machine->init_is_half))
		v->ssp = 0;
	for (i = 0; i < XM_COMPONENTS && !RULE(INIT_SPARES, true); i++)
		v->set[i] = 0;
	v->cr4 = 0;
	v->long_mode = false;
	v->exact = false;
}

/* All that can be read is there, in a vCPU that has not run. */
static void move(struct xm *m, struct xm_vcpu *v)
{
	int i;

	for (i = 0; i < XM_COMPONENTS; i++)
		if (!(xm_shown(m, v) & BIT_ULL(i)) && RULE(MOVED_HIDDEN, true))
			v->set[i] = 0;
	v->grown = xm_kind_amx(v->kind);
	v->ran = false;
	v->exact = false;
	v->tiles_touched = v->set[XFEATURE_XTILE_DATA];
}

static void load_fpu(struct xm *m, struct xm_vcpu *v)
{
	v->exact = false;
	v->pkru_shown = m->machine->xcr0 & XFEATURE_MASK_PKRU;
}

/* ---- guests ---- */

u64 xm_saved(const struct xm *m, const struct xm_vcpu *v, const struct xm_step *s)
{
	bool supervisor = s->nr == XM_INSN_XSAVES && RULE(XSAVES_XSS, true);

	return s->mask & (v->xcr0 | (supervisor ? v->msr[XM_XSS] : 0));
}

static void set_components(const struct xm *m, struct xm_vcpu *v, u64 mask, int set)
{
	u64 component;
	int i;

	for (i = 0; i < XM_COMPONENTS; i++)
		if (mask & XREGS_USER & BIT_ULL(i))
			v->set[i] = set;
	for (i = 0; i < NR_CET_MSRS; i++) {
		component = cet_msr_component(cet_msrs[i]);
		if ((int)component >= 0 && mask & BIT_ULL(component))
			v->msr[i] = xm_cet_value(m, v, i, set);
	}
	if (mask & TILE_DATA) {
		v->unknown &= ~TILE_DATA;
		v->tiles_touched |= set;
	}
}

/* Tile data that is switched off may be gone, or come back. */
static u32 disarmed(struct xm_vcpu *v)
{
	v->msr[XM_XFD_ERR] = TILE_DATA;
	return NM_VECTOR;
}

static u32 guest_tiles(struct xm *m, struct xm_vcpu *v, const struct xm_step *s)
{
	if (!RULE(GUEST_XTILE, (v->xcr0 & XFEATURE_MASK_XTILE) == XFEATURE_MASK_XTILE))
		return UD_VECTOR;
	if (s->nr == XM_TILERELEASE) {
		if (RULE(GUEST_RELEASE, true))
			set_components(m, v, XFEATURE_MASK_XTILE, 0);
		return 0;
	}
	set_components(m, v, XFEATURE_MASK_XTILE, s->set);
	if (!RULE(GUEST_XFD, v->msr[XM_XFD] & TILE_DATA))
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
	if (v->msr[XM_XFD] & mask & s->value & TILE_DATA)
		return disarmed(v);
	if (RULE(XRSTOR_INITIAL, true))
		set_components(m, v, mask & ~s->value, 0);
	set_components(m, v, mask & s->value, s->set);
	return 0;
}

static bool guest_has_msr(const struct xm *m, const struct xm_vcpu *v, int nr)
{
	switch (nr) {
	case XM_XSS:
		return RULE(GUEST_XSS, m->machine->xsaves);
	case XM_XFD:
	case XM_XFD_ERR:
		return RULE(GUEST_XFD_MSR, m->machine->xfd);
	case XM_PASID:
		return false;
	}
	return RULE(GUEST_CET, kind_msr(m, v->kind, nr));
}

static struct xm_answer guest_msr(struct xm *m, struct xm_vcpu *v, const struct xm_step *s)
{
	bool write = s->nr == XM_WRMSR, taken = guest_has_msr(m, v, s->how);
	struct xm_answer a;

	if (taken && write)
		taken = s->how < NR_CET_MSRS ? cet_value_is_valid(m, v, s->how, s->value) :
					       host_sets(m, v, s->how, s->value);
	a = answer(taken ? 0 : GP_VECTOR);
	a.any_result = !taken && m->machine->ignores_msrs;
	if (taken && write)
		v->msr[s->how] = s->value;
	if (taken)
		a.read[0] = v->msr[s->how];
	if (taken && write && s->how == XM_XFD && s->value &&
	    (v->set[XFEATURE_XTILE_DATA] || v->unknown))
		v->unknown |= TILE_DATA;
	return a;
}

static struct xm_answer guest_cpuid(const struct xm *m, const struct xm_vcpu *v)
{
	struct xm_answer a = answer(0);

	a.read[0] = xf_standard_size(v->xcr0) |
		    (v->cr4 & X86_CR4_OSXSAVE ? BIT_ULL(32) : 0) |
		    (v->cr4 & X86_CR4_PKE ? BIT_ULL(33) : 0);
	a.read[1] = xm_compacted_size(m, v);
	return a;
}

static u32 guest_xsetbv(struct xm *m, struct xm_vcpu *v, u64 xcr0)
{
	if (!RULE(XSETBV_LEGAL, takes_xcr0(m, v, xcr0)))
		return GP_VECTOR;
	v->xcr0 = xcr0;
	return 0;
}

static struct xm_answer guest(struct xm *m, struct xm_vcpu *v, const struct xm_step *s)
{
	bool osxsave = RULE(GUEST_OSXSAVE, v->cr4 & X86_CR4_OSXSAVE);
	struct xm_answer a = answer(0);

	load_fpu(m, v);
	v->ran = true;
	switch (s->nr) {
	case XM_WRMSR:
	case XM_RDMSR:
		return guest_msr(m, v, s);
	case XM_INSN_CPUID:
		return guest_cpuid(m, v);
	case XM_WRPKRU:
	case XM_RDPKRU:
		if (!RULE(GUEST_PKE, v->cr4 & X86_CR4_PKE))
			return answer(UD_VECTOR);
		if (s->nr == XM_WRPKRU)
			v->set[XFEATURE_PKRU] = s->set;
		a.read[0] = m->machine->pkru[v->set[XFEATURE_PKRU]];
		return a;
	}
	if (!osxsave)
		return answer(UD_VECTOR);
	switch (s->nr) {
	case XM_LOAD:
		set_components(m, v, s->mask, s->set);
		/* AVX instructions clear what is beyond their registers. */
		if (s->mask & XFEATURE_MASK_YMM && !(s->mask & XFEATURE_MASK_ZMM_Hi256))
			set_components(m, v, XFEATURE_MASK_ZMM_Hi256, 0);
		return a;
	case XM_TILES:
	case XM_TILERELEASE:
		return answer(guest_tiles(m, v, s));
	case XM_INSN_XRSTOR:
	case XM_INSN_XRSTORS:
		return answer(guest_restore(m, v, s));
	case XM_XSETBV:
		return answer(guest_xsetbv(m, v, s->value));
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
	return xcr0 & TILE_DATA || !(v->set[XFEATURE_XTILE_DATA] || v->unknown);
}

/* With one half of CET, a CPU lets the guest set what belongs to the other one. */
static bool allows_wrmsr(const struct xm *m, const struct xm_vcpu *v, const struct xm_step *s)
{
	bool has = kind_msr(m, v->kind, I_U_CET);

	if (s->how == XM_PASID || (s->how != I_U_CET && s->how != I_S_CET) || !has)
		return true;
	return s->value & (CET_RESERVED | BIT_ULL(63)) ||
	       cet_value_is_valid(m, v, s->how, s->value);
}

static bool allows_guest(const struct xm *m, const struct xm_vcpu *v, const struct xm_step *s)
{
	bool armed = !(v->msr[XM_XFD] & TILE_DATA);

	if (!v->long_mode)
		return false;
	switch (s->nr) {
	case XM_LOAD:
		return s->set && v->cr4 & X86_CR4_OSXSAVE && !(s->mask & ~v->xcr0);
	case XM_TILES:
		return s->set;
	case XM_INSN_XSAVEC:
		return m->machine->xsavec;
	case XM_INSN_XSAVES:
		return m->machine->xsaves;
	case XM_INSN_XRSTORS:
		if (!m->machine->xsaves)
			return false;
		/* fallthrough */
	case XM_INSN_XRSTOR:
		return is_whole(s->mask) && is_whole(s->value) &&
		       (armed || !(s->mask & ~s->value & TILE_DATA));
	case XM_XSETBV:
		return !m->machine->no_xsetbv && allows_xcr0(v, s->value);
	case XM_WRMSR:
		return allows_wrmsr(m, v, s);
	}
	return true;
}

/*
 * IA32_XFD must never disarm tiles that are in memory, nor be restored after them:
 * then the next load of the guest's FPU is a fault of the host.
 */
static bool allows_host_msr(const struct xm *m, const struct xm_vcpu *v, const struct xm_step *s)
{
	if (s->how && !m->machine->one_reg)
		return false;
	if (s->nr == XM_XFD && s->value & TILE_DATA && s->op == XM_SET_MSR)
		return !v->tiles_touched;
	/* Without any component in it, the host need not have it. */
	return s->nr != XM_XSS || m->machine->xss || (s->op == XM_SET_MSR && s->value);
}

static bool allows_cpuid(const struct xm *m, const struct xm_vcpu *v, int kind)
{
	struct xm after = *m;
	struct xm_vcpu w = *v;

	return set_cpuid(&after, &w, kind) || kind == v->kind || cpuid_fits(m, v, kind);
}

static bool allows_sregs(const struct xm *m, const struct xm_vcpu *v, const struct xm_step *s)
{
	return v->kind != XM_NO_CPUID && (s->how != XM_BY_SREGS2 || m->machine->sregs2) &&
	       (s->how != XM_BY_RUN || m->machine->run_sregs);
}

/* With the larger fpstate tiles fit, though CPUID may have lost them. */
static bool allows_xsave(const struct xm_vcpu *v, const struct xm_step *s)
{
	return is_whole(s->mask & ~(v->grown ? 0 : XFEATURE_MASK_XTILE)) &&
	       (!(s->mask & XFEATURE_MASK_XTILE) || v->grown == xm_kind_amx(v->kind));
}

bool xm_allows(const struct xm *m, const struct xm_step *s)
{
	const struct xm_vcpu *v = &m->vcpu[s->vcpu];

	if (s->op >= XM_CREATE && v->exists == (s->op == XM_CREATE))
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
		return allows_sregs(m, v, s);
	case XM_XCRS:
		return allows_xcr0(v, s->value);
	case XM_XSAVE:
		return allows_xsave(v, s);
	case XM_SET_MSR:
	case XM_GET_MSR:
		return allows_host_msr(m, v, s);
	case XM_SSP:
		return m->machine->one_reg;
	case XM_PENDING:
		return v->long_mode;
	case XM_MOVE:
		return v->kind != XM_NO_CPUID && !v->unknown &&
		       !(v->msr[XM_XFD] && v->tiles_touched);
	case XM_GUEST:
		return allows_guest(m, v, s);
	}
	return true;
}

struct xm_answer xm_take(struct xm *m, const struct xm_step *s)
{
	struct xm_vcpu *v = &m->vcpu[s->vcpu];

	if ((s->op == XM_SIGNAL || s->op >= XM_CPUID) && s->flags & XM_LIVE &&
	    !(s->flags & XM_BY_THREAD))
		m->used_amx |= m->host;
	switch (s->op) {
	case XM_REQUEST:
		return answer(request(m, s));
	case XM_ALTSTACK:
		return answer(altstack(m, s));
	case XM_USE_AMX:
		m->used_amx |= m->host && !(s->flags & XM_BY_THREAD);
		return answer(RULE(AMX_NEEDS_PERMISSION, m->host) ? 0 : SIGILL);
	case XM_FORK:
		fork_child(m, s);
		break;
	case XM_EXEC:
		exec_program(m);
		break;
	case XM_CREATE:
		create(m, v);
		break;
	case XM_DESTROY:
		v->exists = false;
		break;
	case XM_CPUID:
		return answer(set_cpuid(m, v, s->set));
	case XM_SREGS:
		if (s->how == XM_BY_RUN)
			load_fpu(m, v);
		return answer(set_sregs(m, v, s->value));
	case XM_XCRS:
		if (!takes_xcr0(m, v, s->value))
			return answer(EINVAL);
		v->xcr0 = s->value;
		break;
	case XM_XSAVE:
		return answer(set_xsave(m, v, s));
	case XM_SET_MSR:
	case XM_GET_MSR:
		return host_msr(m, v, s);
	case XM_SSP:
		return answer(set_ssp(m, v, s->value));
	case XM_INIT:
		take_init(m, v);
		break;
	case XM_IMMEDIATE:
	case XM_PENDING:
		load_fpu(m, v);
		return answer(EINTR);
	case XM_MOVE:
		load_fpu(m, v);
		move(m, v);
		break;
	case XM_GUEST:
		return guest(m, v, s);
	}
	return answer(0);
}
