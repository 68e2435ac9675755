# SPDX-License-Identifier: GPL-2.0-only
#
# The scripts of lab/ do the work and read the variables from the environment.

.POSIX:

all:
	@lab/kselftest build

kselftest:
	@lab/kselftest

check:
	@lab/kernel/packages
	@prove tests/

check-slow:
	@lab/kernel/packages
	@prove tests/slow/

install:
	@lab/kselftest install "$(DESTDIR)"

bisect:
	@lab/bisect

series:
	@lab/series

runner:
	@lab/runner "$(DESTDIR)" $(TESTS)

matrix:
	@lab/matrix

history:
	@lab/history

report:
	@lab/webpage

soak:
	@lab/soak

mutants:
	@lab/mutate

detection:
	@lab/mutate detection

update:
	@lab/kernel/fetch update

clean:
	@lab/clean

distclean:
	@lab/clean cache

help:
	@cat lab/help

.PHONY: all kselftest check check-slow install bisect matrix history report series runner soak mutants detection update clean distclean help
