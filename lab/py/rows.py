# SPDX-License-Identifier: GPL-2.0-only
"""The tests of a program, which its results call rows, by the symbols of the program.

A program with the kselftest harness lists them itself with -l, but most of ours only where
there is KVM, and those of 32 bits only where such programs run.
"""

import struct
from pathlib import Path

SYMTAB, NOBITS = 2, 8           # types of sections


class Elf:
    """As much of an ELF file as the names of tests take."""

    def __init__(self, data):
        self.data = data
        if data[:4] != b"\x7fELF" or data[5] != 1:
            raise ValueError("no little-endian ELF file")
        self.is_wide = data[4] == 2
        start, size, count = (*struct.unpack_from("<Q", data, 0x28), *struct.unpack_from("<HH", data, 0x3a)) \
            if self.is_wide else (*struct.unpack_from("<I", data, 0x20), *struct.unpack_from("<HH", data, 0x2e))
        section = "<IIQQQQIIQQ" if self.is_wide else "<10I"
        # name, type, flags, address, offset, size, link, info, alignment, size of an entry
        self.sections = [struct.unpack_from(section, data, start + n * size) for n in range(count)]

    def symbols(self):
        """{name: address}"""
        found = {}
        for _, kind, _, _, offset, size, link, *_ in self.sections:
            if kind != SYMTAB:
                continue
            strings, table = self.sections[link], self.data[offset:offset + size]
            for entry in struct.iter_unpack("<IBBHQQ" if self.is_wide else "<IIIBBH", table):
                name = self.string(strings[4] + entry[0])
                found[name] = entry[4] if self.is_wide else entry[1]
        return found

    def string(self, offset):
        return self.data[offset:self.data.index(b"\0", offset)].decode("ascii", "replace")

    def offset(self, address):
        """Where in the file it is that has this address, or None."""
        return next((offset + address - start for _, kind, _, start, offset, size, *_ in self.sections
                     if start and kind != NOBITS and start <= address < start + size), None)

    def string_at(self, address):
        """The string that the pointer at this address points to, or None."""
        at = self.offset(address)
        if at is None:
            return None
        target = self.offset(struct.unpack_from("<Q" if self.is_wide else "<I", self.data, at)[0])
        return None if target is None else self.string(target)


def longest(fixtures, name):
    """The fixture that the name of a test begins with; the longer one where that is two."""
    return max((f for f in fixtures if name.startswith(f + "_")), key=len, default="")


def fixture_of(fixtures, elf, symbols, name):
    """The fixture of the variant with the symbol _NAME_variant, by the name in its metadata."""
    variant = elf.string_at(symbols.get(f"_{name}_object", 0))
    if variant and name.endswith("_" + variant) and name[:-len(variant) - 1] in fixtures:
        return name[:-len(variant) - 1]
    return longest(fixtures, name)


def of_program(path):
    """{"FIXTURE.TEST": its variants} of a program; no variants if its fixture has none."""
    try:
        elf = Elf(Path(path).read_bytes())
        symbols = elf.symbols()
    except (ValueError, struct.error, IndexError):
        return {}                   # not one of the harness
    fixtures = {n[1:-len("_fixture_object")]: [] for n in symbols if n.endswith("_fixture_object")}
    for symbol in sorted(symbols):
        if fixtures and symbol.startswith("_") and symbol.endswith("_variant"):
            name = symbol[1:-len("_variant")]
            fixture = fixture_of(fixtures, elf, symbols, name)
            if fixture:
                fixtures[fixture].append(name[len(fixture) + 1:])
    found = {}
    for symbol in sorted(symbols):
        name = symbol.removeprefix("wrapper_")
        # Each test has a second symbol for its teardown; compilers add some with a dot.
        if name == symbol or "." in name or \
                name.endswith("_teardown") and symbol.removesuffix("_teardown") in symbols:
            continue
        fixture = longest(fixtures, name)
        if fixture:
            found[f"{fixture}.{name[len(fixture) + 1:]}"] = fixtures[fixture]
    return found


def names(test, variants):
    """The rows of a test."""
    fixture, _, name = test.partition(".")
    return [f"{fixture}.{variant}.{name}" for variant in variants] or [test]


def flat(tests):
    """All rows of a program, of which of_program() gives the tests."""
    return [row for test, variants in tests.items() for row in names(test, variants)]
