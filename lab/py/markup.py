# SPDX-License-Identifier: GPL-2.0-only
"""HTML by functions: what is not markup already is escaped, wherever it comes from.

	tag("td", "a < b", tag("code", name), cls="pass", href=None)

A str is text; Safe is markup, which tag() makes, and nobody else.  None is left out, lists
are taken apart.
"""

import html
import re

# What ends a line elsewhere than it seems, turns text round, or cannot be written at all.
ODD = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
                 "\ufeff\ufff0-\ufffb\ufffe\uffff\ud800-\udfff\U000e0000-\U000e0fff]")
VOID = ("br", "input", "meta")


class Safe(str):
    """Markup that is as it should be."""


def text(value):
    return Safe(html.escape(ODD.sub("?", str(value))))


def join(*children):
    """Children of an element as markup."""
    out = []
    for child in children:
        if isinstance(child, (list, tuple)):
            out.append(join(*child))
        elif child is not None:
            out.append(child if isinstance(child, Safe) else text(child))
    return Safe("".join(out))


def tag(name, /, *children, **attributes):
    """An element; of attributes "cls" is class, "_" a hyphen, None is left out, True has no value."""
    words = [name]
    for key, value in attributes.items():
        key = "class" if key == "cls" else key.rstrip("_").replace("_", "-")
        if value is True:
            words.append(key)
        elif value is not None and value is not False:
            words.append(f'{key}="{text(value)}"')
    head = " ".join(words)
    return Safe(f"<{head}>" if name in VOID else f"<{head}>{join(*children)}</{name}>")


def scroll(*children, label):
    """What may be wider than the page, and scrolls by itself."""
    return tag("div", *children, cls="scroll", tabindex=0, role="region", aria_label=label)


def table(head, rows, label, **attributes):
    """A table; rows are lists of cells (markup of td or th, or what becomes a td), or markup of a tr."""
    lines = []
    for row in rows:
        if not isinstance(row, Safe):
            row = tag("tr", *(c if isinstance(c, Safe) and c.startswith(("<td", "<th")) else tag("td", c)
                              for c in row))
        lines.append(row)
    top = tag("tr", *(tag("th", title, scope="col") for title in head))
    return scroll(tag("table", tag("thead", top), tag("tbody", *lines), **attributes), label=label)


def details(summary, *children, **attributes):
    return tag("details", tag("summary", summary), *children, **attributes)


class Ids:
    """Names of places in the page: the same for the same key, another for each other one."""

    def __init__(self):
        self.by_key, self.taken = {}, set()
        self.linked, self.placed = set(), set()

    def name(self, *key):
        if key not in self.by_key:
            base = re.sub(r"[^a-z0-9]+", "-", "-".join(map(str, key)).lower()).strip("-")[:60] or "x"
            name, n = base, 1
            while name in self.taken:
                n += 1
                name = f"{base}-{n}"
            self.taken.add(name)
            self.by_key[key] = name
        return self.by_key[key]

    def place(self, *key):
        """The id of the element that is there."""
        self.placed.add(self.name(*key))
        return self.name(*key)

    def link(self, *key):
        """The href that leads there."""
        self.linked.add(self.name(*key))
        return "#" + self.name(*key)

    def lost(self):
        """Links to places that the page does not have."""
        return sorted(self.linked - self.placed)
