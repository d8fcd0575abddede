"""Pages of a static site: one shell, one stylesheet, Markdown and tables as HTML, links that lead somewhere.

A page names nothing outside the site but what a reader may click: it opens from a disk without a network.
"""

import html
import posixpath
import re
from urllib.parse import urlsplit

import pandas as pd
from nbconvert.filters.markdown import markdown2html

STYLE_FILE = "style.css"
STYLE = """\
body { margin: 0 auto; max-width: 92rem; padding: 0 1.5rem 4rem; background: #fff; color: #1a1a1a;
  font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; }
nav { padding: .8rem 0; border-bottom: 1px solid #ccc; font-size: .9rem; }
nav a { margin-right: 1.2rem; }
h1 { font-size: 1.7rem; line-height: 1.25; } h2 { font-size: 1.3rem; margin-top: 2.2rem; }
h3 { font-size: 1.08rem; margin-top: 1.6rem; }
p, li, blockquote, summary { max-width: 50rem; }
blockquote { margin: 1rem 0; padding: .1rem 1rem; border-left: 4px solid #999; color: #333; }
a { color: #0a4d9c; } a.anchor-link { display: none; }
code, pre { font: 13.5px/1.45 ui-monospace, "DejaVu Sans Mono", monospace; }
code { background: #f3f3f3; padding: 0 .2em; } pre { margin: .6rem 0; overflow-x: auto; white-space: pre; }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border: 0; border-collapse: collapse; font-size: 13.5px; line-height: 1.35; }
th, td { border: 0; border-bottom: 1px solid #ddd; padding: .3rem .6rem; }
th, td { text-align: left; vertical-align: top; }
thead th { border-bottom: 2px solid #888; background: #f7f7f7; }
.wide table { width: max-content; } .wide td, .wide th { max-width: 17rem; }
img { max-width: 100%; height: auto; }
figure { margin: 1.2rem 0; } figcaption { max-width: 50rem; color: #333; font-size: .93rem; }
.filter { position: sticky; top: 0; background: #fff; padding: .6rem 0; border-bottom: 1px solid #ccc; }
.filter label { margin-right: 1rem; } .filter select, .filter input { font: inherit; }
td.fails, td.contradicted { color: #a11212; font-weight: 600; } td.holds { color: #0b6b2e; font-weight: 600; }
"""
ANCHOR = re.compile(r'<a href="([^"#][^"]*)">(.*?)</a>', re.S)


def page(title: str, body: str, place: str, ways: dict[str, str]) -> str:
    """A whole page.

    Args:
        title: as text.
        body: as HTML.
        place: of the page in the site, such as mini/896-s0.html; links are relative to it.
        ways: name to place of the pages that every page leads to.
    """
    up = {name: relative(target, place) for name, target in ways.items()}
    nav = "".join(f'<a href="{target}">{html.escape(name)}</a>' for name, target in up.items())
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n"
        '<link rel="icon" href="data:,">\n'  # else a browser asks the server for one
        f'<link rel="stylesheet" href="{relative(STYLE_FILE, place)}">\n</head>\n'
        f"<body>\n<nav>{nav}</nav>\n{body}\n</body>\n</html>\n"
    )


def relative(target: str, place: str) -> str:
    """The link from a page to another place of the site."""
    return posixpath.relpath(target, posixpath.dirname(place) or ".")


def markdown(text: str, known: dict[str, str]) -> str:
    """Markdown as HTML by nbconvert, tables in boxes that scroll, links as `linked` has them."""
    return scrolled(linked(markdown2html(text), known))


def linked(body: str, known: dict[str, str]) -> str:
    """HTML whose relative links lead to where `known` says; one that is not known becomes its text."""

    def one(found: re.Match) -> str:
        target = known.get(found[1])
        if target is None and urlsplit(found[1]).scheme:
            return found[0]
        return f'<a href="{target}">{found[2]}</a>' if target else found[2]

    return ANCHOR.sub(one, body)


def scrolled(body: str) -> str:
    """HTML with every table in a box of its own that scrolls sideways."""
    return re.sub(r"(<table.*?</table>)", r'<div class="scroll">\1</div>', body, flags=re.S)


def table(frame: pd.DataFrame, escape: bool = True) -> str:
    """A frame as an HTML table without its index; with `escape` False its cells are HTML already."""
    return scrolled(frame.to_html(index=False, escape=escape, border=0, na_rep="-"))
