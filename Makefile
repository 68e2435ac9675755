# SPDX-License-Identifier: GPL-2.0-only
#
# The scripts of lab/ do the work and read the variables from the environment.

.POSIX:

# What these run is Python, which a fresh machine may not have.
all kselftest list install runner bisect matrix history report soak mutants detection: .python

.python:
	@command -v python3 >/dev/null || lab/kernel/packages fetch build lab

.PHONY: .python

all:
	@lab/kselftest build

kselftest:
	@lab/kselftest

list:
	@lab/kselftest list

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

.PHONY: all kselftest list check check-slow install bisect matrix history report series runner soak mutants detection update clean distclean help
