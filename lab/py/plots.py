# SPDX-License-Identifier: GPL-2.0-only
"""Plots as SVG within the page.  Colours are classes of lab/web/style.css; each has a word or a
symbol beside it.
"""

from markup import tag

SYMBOL = {"pass": "✓", "fail": "✗", "skip": "–", "xfail": "!", "missing": "?"}
WORD = {"pass": "ok", "fail": "not ok", "skip": "skipped", "xfail": "known failure", "missing": "no result"}
CHAR = 7.3                      # width of a character, in pixels


def clip(text, most):
    return text if len(text) <= most else text[:most - 1] + "…"


def svg(width, height, label, *children):
    """It keeps its size, for its text has to be read: what is around it scrolls."""
    return tag("svg", tag("title", label), *children, viewBox=f"0 0 {width} {height}", width=width,
               height=height, role="img", aria_label=label)


def label_text(text, href, x, y, anchor="start"):
    found = tag("text", text, x=x, y=y, text_anchor=anchor)
    return tag("a", found, href=href) if href else found


def bars(items, label, most=40):
    """Horizontal bars; items are (name, href or None, [(value, status)], text behind the bar)."""
    left = CHAR * min(most, max([len(name) for name, *_ in items] + [4])) + 10
    room = 380
    right = CHAR * max([len(after) for *_, after in items] + [1]) + 16
    top = max([sum(v for v, _ in parts) for _, _, parts, _ in items] + [0]) or 1
    out, y = [], 2
    for name, href, parts, after in items:
        out.append(label_text(clip(name, most), href, round(left - 8), y + 12, "end"))
        x = left
        for value, status in parts:
            width = room * value / top
            if width > 0:
                out.append(tag("rect", x=f"{x:.1f}", y=y, width=f"{width:.1f}", height=15, cls=f"b-{status}"))
            x += width
        out.append(tag("text", after, x=f"{x + 6:.1f}", y=y + 12))
        y += 19
    return svg(round(left + room + right), y + 2, label, *out)


def version_axis(versions, column):
    """Names of versions, slanted, over their columns; and how high they are."""
    height = round(5.2 * max(len(v) for v in versions)) + 14
    out = [tag("text", v, x=0, y=0, transform=f"translate({n * column + column / 2 + 3:.1f} {height - 6}) rotate(-50)")
           for n, v in enumerate(versions)]
    return out, height


def timeline(versions, lanes, label):
    """Windows of verdicts over versions; lanes are (text, href, [(first, last, status, reason)])."""
    column = max(20, min(64, 900 // len(versions)))
    place = {v: n for n, v in enumerate(versions)}
    axis, y = version_axis(versions, column)
    width = len(versions) * column + 90     # the last name leans over the edge
    out = list(axis)
    for text, href, windows in lanes:
        out.append(label_text(clip(text, int(width / CHAR)), href, 2, y + 13))
        for first, last, status, reason in windows:
            x, w = place[first] * column, (place[last] - place[first] + 1) * column
            words = f"{SYMBOL[status]} {WORD[status]}"
            said = words if len(words) * CHAR + 8 <= w else SYMBOL[status]
            where = first if first == last else f"{first} to {last}"
            out.append(tag(
                "g", tag("title", f"{where}: {WORD[status]}{f' ({reason})' if reason else ''}"),
                tag("rect", x=x + 1, y=y + 18, width=w - 2, height=18, cls=f"w w-{status}"),
                tag("text", said, x=x + 6, y=y + 31, cls=f"t-{status}")))
        y += 44
    return svg(width, y, label, *out)
