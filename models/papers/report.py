"""The report: one HTML file that needs nothing else, made from what the folder of a reproduction holds."""

import base64
import html
import json
import os
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tinygrad_scratch as tg
from models.files import read_json, write_atomically
from models.papers import NAMES
from models.papers.claims import Paper

STYLE = Path(__file__).with_name("report.css")
MARKS = {"matched": "✓", "partly": "◐", "not matched": "✗", "shown": "○", "quick": "…", "not run": "-"}


def write_report(out: Path, command: str, seconds: float, runs: int) -> None:
    """Write report.html from each paper's results and figures in `out`."""
    write_atomically(out / "report.html", page(out, made(command, seconds, runs)).encode())


def page(out: Path, footer: str) -> str:
    """The whole document."""
    from models.papers.commands import ABOUT, paper

    found = [name for name in NAMES if (out / name / ABOUT).is_file()]
    abouts = {name: read_json(out / name / ABOUT) for name in found}
    body = [overview({name: (paper(name), abouts[name]) for name in found})]
    for name in found:
        body += section(paper(name), abouts[name], out / name)
    body.append(footer)
    links = "".join(f'<a href="#{name}">{name}</a>' for name in found)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><title>Five papers, reproduced</title>'
        f"<style>\n{STYLE.read_text()}</style></head>\n<body><header><h1>Five papers, reproduced</h1>"
        f"<nav>{links}</nav></header>\n<main>\n" + "\n".join(body) + "\n</main></body></html>\n"
    )


def text(value: Any) -> str:
    return html.escape(str(value))


def overview(papers: dict[str, tuple[Paper, dict[str, Any]]]) -> str:
    """One row a paper: its headline and how many claims came out how."""
    rows = []
    for name, (paper, about) in papers.items():
        results = {result["id"]: result for result in about["results"]}
        counts = [f"{sum(r['verdict'] == v for r in results.values())} {v}" for v in MARKS]
        verdicts = ", ".join(count for count in counts if not count.startswith("0 "))
        check = headline(paper, results)
        rows.append(
            f'<tr><td><a href="#{name}">{name}</a></td><td>{text(check["what"])}</td><td>{text(check["reported"])}</td>'
            f"<td>{text(check['measured'])}</td><td>{text(verdicts)}</td></tr>"
        )
    head = "<tr><th>paper</th><th>headline</th><th>reported</th><th>measured</th><th>claims</th></tr>"
    return f'<div class="wide"><table><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>'


def headline(paper: Paper, results: dict[str, Any]) -> dict[str, str]:
    """The check that stands for the paper, if its claim is among the results."""
    claim, what = paper.headline
    checks = results.get(claim, {}).get("checks", [])
    empty = {"what": what, "reported": "", "measured": "not run"}
    return next((check for check in checks if check["what"] == what), empty)


def section(paper: Paper, about: dict[str, Any], folder: Path) -> Iterator[str]:
    """A paper: setting, claims, figures."""
    yield f'<section id="{paper.name}"><h2>{text(paper.title)}</h2><p class="authors">{text(paper.authors)}</p>'
    yield f"<p>{text(paper.setting)}</p>"
    if paper.choices:
        yield "<details><summary>What the paper leaves open, and what was chosen</summary><ul>"
        yield "".join(f"<li>{text(choice)}</li>" for choice in paper.choices) + "</ul></details>"
    beyond = {claim.id for claim in paper.claims if claim.beyond}
    for title, wanted in (("Claims", False), ("Beyond the paper", True)):
        chosen = [result for result in about["results"] if (result["id"] in beyond) == wanted]
        if chosen:
            yield f"<h3>{title}</h3>" + "".join(map(claim_box, chosen))
    if about["figures"]:
        yield '<h3>Figures</h3><div class="figures">'
        yield "".join(figure_box(figure, folder) for figure in about["figures"]) + "</div>"
    yield "</section>"


def claim_box(result: dict[str, Any]) -> str:
    """A claim: what is reported, each check, the verdict, why, seeds and time."""
    verdict = result["verdict"]
    rows = "".join(
        f"<tr><td>{text(check['what'])}</td><td>{text(check['reported'])}</td><td>{text(check['measured'])}</td>"
        f"<td>{ {True: '✓', False: '✗', None: ''}[None if verdict == 'quick' else check['held']] }</td></tr>"
        for check in result["checks"]
    )
    head = "<tr><th></th><th>reported</th><th>measured</th><th></th></tr>"
    table = f'<div class="wide"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>' if rows else ""
    seeds = ", ".join(map(str, result["seeds"])) or "none"
    note = f'<p class="note">{text(result["note"])}</p>' if result["note"] else ""
    settings = "".join(
        f"<li>{text(label)}: <code>{text(json.dumps(told))}</code></li>"
        for label, told in result.get("settings", {}).items()
    )
    return (
        f'<article id="{result["id"]}"><h4><code>{text(result["id"])}</code> <span class="where">{text(result["where"])}'
        f'</span> <span class="verdict {verdict.replace(" ", "-")}">{MARKS[verdict]} {verdict}</span></h4>'
        f"<p>{text(result['reported'])}</p>{table}{note}"
        f'<details class="small"><summary>seeds {seeds}; {result["cpu_seconds"]:.1f} s of computing; settings</summary>'
        f"<ul>{settings}</ul></details></article>"
    )


def figure_box(figure: dict[str, str], folder: Path) -> str:
    """A figure, inside the document."""
    data = base64.b64encode((folder / f"{figure['name']}.png").read_bytes()).decode()
    caption = text(figure["caption"])
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption></figure>'
    )


def made(command: str, seconds: float, runs: int) -> str:
    """How, when and where it was made."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "numba", "matplotlib") if has(name))
    facts = [
        f"<code>{text(command)}</code>",
        f"{datetime.now(UTC).isoformat(timespec='minutes')}; {seconds:.0f} s of wall time for {runs} runs; the others "
        "were done before",
        f"tinygrad_scratch {tg.__version__}, Python {platform.python_version()}, {packages}",
        f"{text(platform.platform())}, {os.cpu_count()} cores",
    ]
    return "<footer><h3>How it was made</h3><ul>" + "".join(f"<li>{fact}</li>" for fact in facts) + "</ul></footer>"


def has(package: str) -> bool:
    """Whether it is installed."""
    from importlib.util import find_spec

    return find_spec(package) is not None
