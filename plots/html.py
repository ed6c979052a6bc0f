"""HTML put together so that text stays text, whatever it says.

Strings are escaped wherever they become part of an element; only what this module made is `Html`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape

_VOID = {"img", "meta", "br"}


class Html(str):
    """Markup, made by `element`, `join` and `page` alone."""

    __slots__ = ()


def element(name: str, /, *children: str, **attributes: str) -> Html:
    """Returns ``<name attributes>children</name>``, with every string in it escaped.

    An attribute called class or with a hyphen is written class_ or with an underscore.
    """
    listed = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
                     for key, value in attributes.items())
    if name in _VOID:
        return Html(f"<{name}{listed}>")
    return Html(f"<{name}{listed}>{join(children)}</{name}>")


def join(parts: Iterable[str]) -> Html:
    """Returns the parts one after the other, strings escaped."""
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in parts))


def image(content: bytes, kind: str, alt: str, **attributes: str) -> Html:
    """Returns an image that holds its own content; `kind` is such as ``png`` or ``svg+xml``."""
    data = base64.b64encode(content).decode("ascii")
    return element("img", src=f"data:image/{kind};base64,{data}", alt=alt, **attributes)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Html:
    """Returns a table that scrolls by itself where it is wider than the screen."""
    body = [element("tr", element("th", first, scope="row"), *(element("td", c) for c in rest))
            for first, *rest in rows]
    top = element("tr", *(element("th", cell, scope="col") for cell in head))
    inner = element("table", element("thead", top), element("tbody", *body))
    return element("div", inner, class_="wide", tabindex="0")


def page(title: str, *body: str) -> Html:
    """Returns a whole page that loads nothing and runs nothing.

    The policy in it makes browsers refuse scripts and whatever is not in the page itself.
    """
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = join([
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        Html(f"<style>{_STYLE}</style>"),
    ])
    whole = element("html", element("head", head), element("body", *body), lang="en")
    return Html(f"<!doctype html>\n{whole}\n")


_STYLE = """
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:76rem;font:1rem/1.5 system-ui,sans-serif;color:#1b1b1b;
background:#fff;overflow-wrap:anywhere}
h1{font-size:1.5rem;line-height:1.2;margin:.5rem 0}
h2{font-size:1.2rem;margin:2rem 0 .5rem;border-bottom:1px solid #ccc}
h3{font-size:1rem;margin:1rem 0 .25rem}
p,ul{margin:.5rem 0;max-width:60rem}
ul{padding-left:1.2rem}
figure{margin:0}
.legend{max-width:100%;height:auto}
.grid{display:grid;gap:.75rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr))}
.grid figure{max-width:36rem}
.grid img{width:100%;height:auto;display:block}
figcaption,.small{font-size:.875rem;color:#444}
.clips{display:grid;gap:.75rem;grid-template-columns:repeat(auto-fill,minmax(min(100%,12rem),1fr))}
.clips img{width:100%;max-width:24rem;height:auto;image-rendering:pixelated}
.wide{overflow-x:auto;border:1px solid #ddd}
.wide>img{display:block;height:auto}
table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .5rem;text-align:right;white-space:nowrap;border-bottom:1px solid #eee}
th:first-child{text-align:left;position:sticky;left:0;background:#fff}
thead th{background:#f4f4f4;border-bottom:1px solid #bbb}
details{margin:.4rem 0;border:1px solid #ddd;padding:.25rem .6rem}
summary{cursor:pointer;padding:.25rem 0}
pre{font-size:.8125rem;white-space:pre-wrap;background:#f4f4f4;padding:.5rem;margin:.4rem 0}
"""
