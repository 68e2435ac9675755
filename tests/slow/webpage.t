#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""The page of "make report" in headless Chromium: no error, no request, every link lands where
one can see it, all text can be read in both colour schemes, on a phone and on paper, with
scripts and without; and each of these checks fails on a page that is not so.

As root it installs Debian's chromium if that is missing.  With SCREENS=FOLDER it leaves
pictures there.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path[:0] = [str(TOP / "tests/py"), str(TOP / "lab/py")]
import browser
import pages

# Everything that can be opened is, for checks that look at all of the page.
UNFOLD = """
document.querySelectorAll("details").forEach(function (e) { e.open = true; });
document.querySelectorAll(".drawer").forEach(function (e) { e.style.display = "block"; e.style.position = "static";
							     e.style.maxHeight = "none"; });
return document.querySelectorAll("details, .drawer").length;
"""

LINKS = """
var lost = [], seen = {};

document.querySelectorAll("a").forEach(function (a) {
	var href = a.getAttribute("href");

	if (seen[href])
		return;
	seen[href] = true;
	if (!href || href[0] !== "#" || !document.getElementById(href.slice(1)))
		lost.push(href + " leads nowhere");
});
return lost;
"""

# Called for each link, with time in between for what the page does.
LANDED = """
var e = document.getElementById(location.hash.slice(1)), box = e.getBoundingClientRect();

if (!box.height && !box.width)
	return "is not to be seen";
if (box.top > innerHeight - 5 || box.bottom < 0)
	return "is at " + Math.round(box.top) + " of " + innerHeight;
return "";
"""

# Text and what is behind it: colours with their alpha, one above the other.
CONTRAST = """
function parse(colour) {
	var n = colour.match(/[\\d.]+/g).map(Number);

	return colour.indexOf("rgb") === 0 ? [n[0], n[1], n[2], n.length > 3 ? n[3] : 1] : null;
}
function over(top, below) {
	return [0, 1, 2].map(function (i) { return top[i] * top[3] + below[i] * (1 - top[3]); }).concat(1);
}
function luminance(c) {
	var l = c.slice(0, 3).map(function (v) {
		v /= 255;
		return v <= 0.04045 ? v / 12.92 : Math.pow((v + 0.055) / 1.055, 2.4);
	});

	return 0.2126 * l[0] + 0.7152 * l[1] + 0.0722 * l[2];
}
function behind(e) {
	var layers = [], below = parse(getComputedStyle(document.body).backgroundColor);

	for (var p = e; p && p !== document.body; p = p.parentElement)
		layers.push(parse(getComputedStyle(p).backgroundColor));
	while (layers.length)
		below = over(layers.pop(), below);
	return below;
}
var walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), bad = {}, count = 0;

while (walker.nextNode()) {
	var e = walker.currentNode.parentElement, style = getComputedStyle(e);

	if (!walker.currentNode.data.trim() || !e.getClientRects().length || e.closest("script, style, title"))
		continue;
	var back = behind(e), front = over(parse(style.color), back);
	var a = luminance(front), b = luminance(back), ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);

	count++;
	if (!(ratio >= 4.5) || style.opacity !== "1")
		bad[e.tagName + "." + (e.getAttribute("class") || "") + " '" + walker.currentNode.data.trim().slice(0, 20) + "' " +
		    ratio.toFixed(2)] = 1;
}
return { count: count, bad: Object.keys(bad).slice(0, 10) };
"""

# Whatever is wider than the window without scrolling by itself.
WIDE = """
var wide = [], width = document.documentElement.clientWidth;

if (document.documentElement.scrollWidth <= width && document.body.scrollWidth <= width)
	return wide;
document.querySelectorAll("body *").forEach(function (e) {
	if (e.getBoundingClientRect().right > width + 1 && !e.parentElement.closest(".scroll, pre"))
		wide.push(e.tagName + "." + e.className + " " + Math.round(e.getBoundingClientRect().right));
});
return wide.slice(0, 5).concat("the page is " + document.documentElement.scrollWidth + " of " + width + " wide");
"""

FILTER = """
var form = document.querySelector("form.filters");

function shown(name, value) {
	form.reset();
	form.elements[name].value = value;
	form.dispatchEvent(new Event("input"));
	return [].filter.call(document.querySelectorAll("#kills tbody tr"), function (e) { return e.offsetHeight; }).length +
	       " " + form.querySelector("output").textContent;
}
return [shown("text", ""), shown("verdict", "survived"), shown("file", "arch/x86/kvm/x86.c"), shown("kind", "assertion"),
	shown("text", "HOSTILE"), shown("text", "no such thing")];
"""

count, failed = 0, 0


def report(name, found, wanted):
    global count, failed
    count += 1
    is_good = found == wanted
    failed += not is_good
    if not is_good:
        print(f"# got {str(found)[:1500]}\n# wanted {str(wanted)[:500]}")
    print(f"{'ok' if is_good else 'not ok'} {count} - {name}", flush=True)


def landed(b):
    """Follow every link; what is wrong with those that do not land."""
    lost = b.run(LINKS)
    for href in b.run("return Array.from(new Set([].map.call(document.links, a => a.getAttribute('href'))));"):
        if href.startswith("#") and not any(line.startswith(href + " ") for line in lost):
            # The page has its turn at the change of the address before the next call.
            b.run(f"location.hash = '{href}'; return new Promise(done => setTimeout(done, 0));")
            said = b.run(LANDED)
            lost += [f"{href} {said}"] if said else []
    return lost


def wide(b, width):
    b.window(width, 900)
    return b.run(WIDE)


def dark_on_light(b):
    """Whether the schemes differ at all."""
    found = []
    for scheme in ("light", "dark"):
        b.media(scheme)
        found.append(b.run("return getComputedStyle(document.body).backgroundColor;"))
    return found[0] != found[1]


def errors(b):
    b.run("return new Promise(done => setTimeout(done, 50));")
    return b.errors


def check_page(b, path):
    b.window(1200, 900)
    b.media("light")
    b.open(path)
    report("no error on the console, no dialog", errors(b), [])
    report("nothing is fetched", b.requests, [f"file://{path}"])
    report("nothing of the results runs", b.run("return typeof window.hacked;"), "undefined")
    report("there are links", b.run("return document.links.length > 200;"), True)
    report("every link lands", landed(b), [])
    report("filters", b.run(FILTER), ["5 5 shown", "2 2 shown", "1 1 shown", "2 2 shown", "1 1 shown", "0 0 shown"])

    cell = "document.querySelector('.grid td.fail a')"
    report("a cell opens its drawer", b.run(
        f"scrollTo(0, 500); {cell}.click(); var e = document.querySelector('.drawer:target'); return e && "
        "/XCOMP_BV: wanted 0x1800 got 0x0; lost: CET_USER/.test(e.innerText) && /Kernel log/.test(e.innerText) && "
        "e.getBoundingClientRect().bottom <= innerHeight + 1;"), True)
    report("which Escape closes where one was", b.run(
        "var y = scrollY; document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'})); "
        "return !document.querySelector('.drawer:target') && scrollY === y;"), True)

    report("light and dark are not the same", dark_on_light(b), True)
    for width in (1200, 400, 320):
        report(f"no scrolling sideways at {width} pixels", wide(b, width), [])
    report("much can be opened", b.run(UNFOLD) > 80, True)
    for width in (1200, 400):
        report(f"nor with all of it open at {width}", wide(b, width), [])
    for scheme in ("light", "dark"):
        b.media(scheme)
        found = b.run(CONTRAST)
        report(f"all text can be read, {scheme}", found["bad"], [])
        report("and that is much text", found["count"] > 2000, True)
    b.media("dark", "print")
    found = b.run(CONTRAST)
    report("on paper as well", found["bad"], [])
    report("which is white", b.run("return getComputedStyle(document.body).backgroundColor;"), "rgb(255, 255, 255)")
    report("without drawers of what is well", b.run(
        "document.querySelectorAll('.drawer').forEach(e => e.removeAttribute('style')); return "
        "[].filter.call(document.querySelectorAll('.drawer'), e => (e.offsetHeight > 0) !== e.classList.contains('paper')).length;"), 0)
    report("nor wider than a sheet", wide(b, 720), [])
    b.media()
    data = b.pdf()
    report("it prints", (data[:5], data.count(b"/Type /Page\n") > 1 or len(data) > 50000), (b"%PDF-", True))


def check_without_scripts(b, path):
    b.window(1200, 900)
    b.scripts(False)
    b.open(path)
    try:
        report("without scripts: no error", b.errors, [])
        report("no filter that does nothing", b.run("return document.querySelector('form.filters').offsetHeight;"), 0)
        report("all mutants are there", b.run(
            "return [].filter.call(document.querySelectorAll('#kills tbody tr'), e => e.offsetHeight).length;"), 5)
    finally:
        b.scripts(True)
    cell = b.run("return document.querySelector('.grid td.fail a').getAttribute('href');")
    b.scripts(False)
    try:
        b.open(f"{path}{cell}")
        report("an address opens a drawer", b.run("return getComputedStyle(document.querySelector('.drawer:target')).display;"),
               "block")
    finally:
        b.scripts(True)


def check_checks(b, path):
    """Each check fails where it should."""
    b.window(1200, 900)
    b.media("light")
    text = path.read_text()
    hidden = '<a href="#unseen">x</a><p id="unseen" hidden>x</p>'
    for name, change, check in (
            ("an error", ("<main>", "<main><script>alert(1)</script>"), lambda: errors(b)),
            ("a request", ("<main>", '<main><img src="x.png">'), lambda: b.requests[1:] + errors(b)),
            ("a link to nowhere", ("<main>", '<main><a href="#nowhere">x</a>'), lambda: landed(b)),
            ("a link to elsewhere", ("<main>", '<main><a href="other.html">x</a>'), lambda: landed(b)),
            ("a link to what cannot be seen", ("<main>", f"<main>{hidden.replace('hidden', 'style=display:none')}"), lambda: landed(b)),
            ("grey on white", ("<main>", '<main><p style="color: #888">x</p>'), lambda: b.run(CONTRAST)["bad"]),
            ("grey on green", ("--pass-fg: #0d4a20", "--pass-fg: #88aa88"), lambda: b.run(CONTRAST)["bad"]),
            ("a table without an edge", ("<main>", '<main><table><td style="min-width: 900px">x</table>'), lambda: wide(b, 400))):
        if change[0] not in text:
            report(f"{name}: there is a place for it", False, True)
            continue
        other = path.with_name("changed.html")
        other.write_text(text.replace(*change, 1))
        b.window(1200, 900)
        b.open(other)
        report(f"{name} is noticed", bool(check()), True)


def screens(b, path, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for scheme in ("light", "dark"):
        for width in (1200, 400):
            b.window(width, 2000)
            b.media(scheme)
            b.open(path)
            for place in ("top", "grid", "history", "matrix", "mutants", "run", "bad"):
                b.run(f"location.hash = '#{place}'; return new Promise(done => setTimeout(done, 200));")
                b.screenshot(folder / f"{place}-{scheme}-{width}.png")
            b.run("document.querySelector('.grid td a').click(); return new Promise(done => setTimeout(done, 200));")
            b.screenshot(folder / f"drawer-{scheme}-{width}.png")
    b.media()
    (folder / "paper.pdf").write_bytes(b.pdf())


def install():
    """The browser's command; None if there is none and nobody may install it."""
    if not browser.find() and os.geteuid() == 0:
        subprocess.run([TOP / "lab/kernel/packages", "browser"], stdout=sys.stderr, timeout=1800, check=False)
    return browser.find()


def main():
    command = install()
    if not command:
        print("1..0 # SKIP no chromium: install the Debian package chromium")
        return 0
    with tempfile.TemporaryDirectory() as folder, browser.Browser(command) as b:
        path = Path(os.environ.get("PAGE") or f"{folder}/report.html").resolve()
        if os.environ.get("SCREENS"):
            screens(b, path if os.environ.get("PAGE") else made(folder), Path(os.environ["SCREENS"]))
            print("1..0 # SKIP pictures only")
            return 0
        made(folder)
        check_page(b, path)
        check_without_scripts(b, path)
        check_checks(b, path)
    print(f"1..{count}")
    return int(bool(failed))


def made(folder):
    pages.everything(folder)
    done = subprocess.run([TOP / "lab/webpage", "--out", folder, folder], capture_output=True, text=True, timeout=120)
    report("lab/webpage", (done.returncode, done.stdout), (0, ""))
    return Path(folder) / "report.html"


if __name__ == "__main__":
    sys.exit(main())
