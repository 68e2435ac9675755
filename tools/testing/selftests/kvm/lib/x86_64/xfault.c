// SPDX-License-Identifier: GPL-2.0-only
/* What the tests of KVM share with those of x86/ */
#include "../../../x86/xfault.c"
