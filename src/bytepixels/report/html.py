"""One HTML file that needs nothing else: pieces of a page, its style, and images inside it."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # whatever a name in it says, nothing is fetched
)

STYLE = """
:root { color-scheme: light dark; --paper: #fdfcfa; --ink: #1d1b18; --soft: #6a655d; --rule: #dcd7ce; --panel: #f4f1eb;
  --c0: #2460a7; --c1: #b3541e; --c2: #2d7d46; --c3: #8a4f9e; --c4: #8a7a1f; --c5: #7a7a7a;
  --bad: #a8341b; --shade: #0003; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #16181b; --ink: #e9e6e0; --soft: #a39d93; --rule: #34383d; --panel: #1f2226;
    --c0: #7db0ea; --c1: #eb9a66; --c2: #74c48d; --c3: #cd9be0; --c4: #d6c566; --c5: #a8a8a8;
    --bad: #ef8a74; --shade: #fff4; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.25rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .5rem 0; } h2 { font-size: 1.3rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: 1.05rem; margin: 1.2rem 0 .4rem; } p { max-width: 46rem; margin: .4rem 0; }
.soft, figcaption, .legend { color: var(--soft); font-size: .9rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; padding: 0; list-style: none; } a { color: var(--c0); }
section.run { border-top: 3px solid var(--rule); margin-top: 2.5rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1.2rem; }
figure { margin: .4rem 0; min-width: 0; }
figure img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
.strip { display: flex; gap: .8rem; overflow-x: auto; padding-bottom: .5rem; }
.strip figure { flex: 0 0 auto; width: min(80vw, 26rem); }
.scroll { overflow-x: auto; background:
  linear-gradient(90deg, var(--paper) 40%, transparent) 0 / 3rem 100% no-repeat local,
  linear-gradient(270deg, var(--paper) 40%, transparent) 100% / 3rem 100% no-repeat local,
  linear-gradient(90deg, var(--shade), transparent) 0 / 1rem 100% no-repeat scroll,
  linear-gradient(270deg, var(--shade), transparent) 100% / 1rem 100% no-repeat scroll; } /* a shadow where more is */
.scroll img { max-width: none; }
@media (max-width: 32rem) { table { font-size: .82rem; } th, td { padding-right: .5rem; } }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .93rem; }
th, td { text-align: left; padding: .28rem .8rem .28rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
td.number, th.number { text-align: right; white-space: nowrap; }
table { overflow-wrap: break-word; } th[scope=row] { min-width: 6.5rem; } pre, h1, h2 { overflow-wrap: anywhere; }
pre { background: var(--panel); padding: .8rem; border-radius: 6px; overflow-x: auto; font-size: .85rem; }
.warning { color: var(--bad); }
.chart { width: 100%; height: auto; display: block; } .chart text { fill: var(--soft); font-size: 13px; }
.rule { stroke: var(--rule); stroke-width: 1; } .line { fill: none; stroke: var(--c); stroke-width: 2; }
.line.dashed { stroke-dasharray: 6 4; } .band { fill: var(--c); opacity: .18; } .dot { fill: var(--c); }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; list-style: none; padding: 0; margin: .2rem 0; }
.key { display: inline-block; width: 1.4rem; border-top: 3px solid var(--c); vertical-align: middle;
  margin-right: .35rem; }
.key.dashed { border-top-style: dashed; } details { margin: .6rem 0; } summary { cursor: pointer; }
"""


def page(title: str, body: Iterable[str]) -> str:
    """The whole file. body: pieces that are HTML already."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title><style>{STYLE}</style></head>'
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def text(words: str, kind: str = "") -> str:
    """A paragraph."""
    return f"<p{f' class={kind!r}' if kind else ''}>{escape(words)}</p>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """A table; all columns after the first hold numbers, at the right."""
    kinds = ["", *[' class="number"'] * (len(head) - 1)]
    top = "".join(f'<th scope="col"{kind}>{escape(cell)}</th>' for cell, kind in zip(head, kinds, strict=True))
    lines = [
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(row[1:], kinds[1:], strict=True))
        + "</tr>"
        for row in rows
    ]
    inner = f"<table><thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    scrolled = f'<div class="scroll" tabindex="0">{inner}</div>'
    return figure(scrolled, caption) if caption else scrolled


def figure(content: str, caption: str) -> str:
    """A chart or an image with words below it; "" where there is none."""
    return f"<figure>{content}<figcaption>{escape(caption)}</figcaption></figure>" if content else ""


def image(png: bytes | Path, description: str) -> str:
    """A PNG inside the page; "" where the file cannot be read."""
    try:
        data = png.read_bytes() if isinstance(png, Path) else png
    except OSError:
        return ""
    return f'<img alt="{escape(description)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'


def folded(title: str, content: str, opened: bool = False) -> str:
    """What is shown when it is asked for."""
    return f"<details{' open' if opened else ''}><summary>{escape(title)}</summary>{content}</details>"
