# SPDX-License-Identifier: GPL-2.0-only
"""lab/machines: the CPUs, kernels and parameters that there are, and what each has."""

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from common import LAB, die

# The clock of all of them starts here: a run can be had again.
START_TIME = 1767225600


@dataclass(frozen=True)
class Cpu:
    name: str
    count: int
    model: str
    changes: tuple              # names of features, those to add with a "+"; QEMU's options
    options: str
    has: frozenset = frozenset()
    lacks: frozenset = frozenset()      # what all others have
    is_qemu: bool = False       # QEMU's software emulation

    @property
    def without(self):
        return [name for name in self.changes if not name.startswith("+")]

    @property
    def added(self):
        return [name[1:] for name in self.changes if name.startswith("+")]

    @property
    def kind(self):
        """The emulator that it takes: for one CPU or for several."""
        return "up" if self.count == 1 else "smp"

    @property
    def kvm(self):
        """The module that KVM takes on it."""
        return "kvm-amd" if "svm" in self.has else "kvm-intel"


@dataclass(frozen=True)
class Reason:
    """Why a test may skip: one of the features is not there."""
    text: str                   # with "*" for anything
    features: frozenset

    def match(self, text):
        return re.fullmatch(re.escape(self.text).replace(r"\*", ".*"), text)


def series(text):
    """"6.12" as something to compare."""
    return tuple(int(n) for n in text.split("."))


class Machines:
    """What lab/machines says."""

    def __init__(self, path=LAB / "machines"):
        self.kernels, self.cpus, self.parameters = [], {}, {}
        self.every, self.since, self.builds, self.depends = frozenset(), [], {}, []
        self.reasons, self.parameters_on, self.also = [], [], {}
        models, takes, gives, cpus = {}, {}, {}, []
        for number, line in enumerate(path.read_text().splitlines(), 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            word, rest = words[0], words[1:]
            try:
                if word == "kernels":
                    self.kernels = rest
                elif word == "every":
                    self.every = frozenset(rest)
                elif word == "model":
                    models[rest[0]] = frozenset(rest[1:])
                elif word == "takes":
                    takes[rest[0]] = frozenset(rest[1:])
                elif word == "gives":
                    gives[rest[0]] = frozenset(rest[1:])
                elif word == "cpu":
                    name, count, model, *more = rest
                    changes = tuple(more[0].split(",")) if more and more[0] != "-" else ()
                    cpus.append(Cpu(name, int(count), model, changes, " ".join(more[1:])))
                elif word == "qemu":
                    name, count, model, *has = rest
                    model, *changes = model.split(",")
                    lacks = frozenset(word[1:] for word in has if word.startswith("-"))
                    has = frozenset(word for word in has if not word.startswith("-"))
                    cpus.append(Cpu(name, int(count), model, tuple(changes), "", has, lacks, True))
                elif word == "since":
                    self.since.append((series(rest[0]), rest[1:]))
                elif word == "build":
                    self.builds[rest[0]] = frozenset(rest[1:])
                elif word == "parameter":
                    self.parameters[rest[0]] = frozenset(rest[1:])
                elif word == "also":
                    self.also[rest[0]] = rest[1:]
                elif word == "parameters-on":
                    self.parameters_on = rest
                elif word == "reason":
                    features, text = re.fullmatch(r"reason\s+([^:]*[^:\s]): (\S.*)", line).groups()
                    self.reasons.append(Reason(text, frozenset(features.split())))
                elif word == "with":
                    self.depends.append((rest[0], frozenset(rest[1:])))
                else:
                    raise ValueError
            except (ValueError, IndexError, AttributeError):
                die(f"{path}:{number}: what is '{line}'? The head of the file tells what a line may be")
        for cpu in cpus:
            if not cpu.is_qemu and cpu.model not in models:
                die(f"{path}: the CPU {cpu.name} needs a line 'model {cpu.model} FEATURE...'")
            has = cpu.has | models.get(cpu.model, frozenset()) | ({"smp"} if cpu.count > 1 else set())
            for gone in cpu.without:
                has -= takes.get(gone, frozenset())
            for new in cpu.added:
                has |= gives.get(new, frozenset())
            self.cpus[cpu.name] = replace(cpu, has=has)
        for name in set(self.also) - set(self.cpus):
            die(f"{path}: also {name}: there is no such CPU")
        self.parameters_on = [*self.parameters_on, *self.kernels[-1:]]
        self.check(path)

    def check(self, path):
        """No feature is misspelt where it would excuse a skip for ever."""
        known = self.every.union(*(cpu.has for cpu in self.cpus.values()),
                                 *(features for _, features in self.since), *self.builds.values())
        for reason in self.reasons:
            for feature in sorted(reason.features - known):
                die(f"{path}: reason '{reason.text}': no machine has a feature '{feature}'")

    @property
    def newest(self):
        """The series whose source mutants and tests take."""
        return self.kernels[-1]

    @lru_cache(maxsize=None)
    def reason(self, text):
        """What lab/machines knows of a reason to skip; None if nothing."""
        return next((r for r in self.reasons if r.match(text)), None)

    def cpu(self, name):
        if name not in self.cpus:
            die(f"no CPU '{name}': there are {', '.join(self.cpus)}")
        return self.cpus[name]

    def features(self, kernel, cpu, parameter="none"):
        """What there is on a kernel series, on a CPU, with one parameter."""
        found = self.every - self.cpu(cpu).lacks | self.cpu(cpu).has
        for first, features in self.since:
            if series(kernel) >= first:
                found |= set(features)
        found -= self.parameters.get(parameter, frozenset())
        # In their order: each may depend on those before it.
        for feature, needs in self.depends:
            if not found >= needs:
                found -= {feature}
        return found
