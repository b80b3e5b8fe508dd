"""`python -m models papers` and `python -m models reproduce`: which claims there are, and the runs that show them."""

import argparse
import importlib
import os
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from models.files import RunError, read_json, write_atomically, write_json
from models.papers import NAMES, engine
from models.papers.claims import Claim, Figure, Outcome, Paper, judge
from models.papers.report import write_report
from models.papers.tasks import Task

RESULTS, ABOUT = "results.json", "about.json"


def paper(name: str) -> Paper:
    """The paper of that name."""
    made: Paper = importlib.import_module(f"models.papers.{name}").PAPER
    return made


def list_papers(options: argparse.Namespace) -> int:
    """Print the papers with their claims."""
    for name in NAMES:
        one = paper(name)
        print(f"{name}: {one.title} ({one.authors})")
        for claim in one.claims:
            mark = " (beyond the paper)" if claim.beyond else ""
            print(f"  {claim.id}, {claim.where}{mark}: {claim.says}")
    return 0


def add_commands(commands: Any) -> None:
    """Add both commands to the parser's."""
    command = commands.add_parser("papers", help="list the papers that can be reproduced", allow_abbrev=False)
    command.set_defaults(action=list_papers)
    command = commands.add_parser("reproduce", help="do a paper's experiments again", allow_abbrev=False)
    command.add_argument("paper", choices=(*NAMES, "all"), help="which paper, or all")
    command.add_argument("--claim", metavar="ID", help="only this claim, and the figures that need no other run")
    command.add_argument("--quick", action="store_true", help="runs too short to judge by: does everything work?")
    command.add_argument("--seeds", type=positive, default=1, metavar="N", help="runs of each, seeds 0 to N-1")
    jobs = min(2, os.cpu_count() or 1)
    command.add_argument("--jobs", type=positive, default=jobs, metavar="N", help="processes (default: %(default)s)")
    command.add_argument("--out", type=Path, default=Path("reproduced"), metavar="DIR", help="default: %(default)s")
    command.add_argument("--data-dir", metavar="DIR", help="the folder of the official Python batches of CIFAR-10")
    command.add_argument("--download", action="store_true", help="fetch CIFAR-10 (170 MB) if it is not there")
    command.add_argument("--dask", metavar="ADDRESS", help="do the runs on the workers of this Dask scheduler")
    command.add_argument("--no-runs", action="store_true", help="begin no run: judge, draw and report what is there")
    command.add_argument("--backend", choices=("auto", "numpy", "numba"), help="what computes the steps")
    command.set_defaults(action=reproduce)


def positive(text: str) -> int:
    """A whole number of at least 1, or ValueError."""
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def reproduce(options: argparse.Namespace) -> int:
    """Do the runs that are missing, judge the claims, draw the figures, write the report."""
    began = time.perf_counter()
    out = options.out if not options.quick else options.out / "quick"
    papers = [selected(paper(name), options) for name in (NAMES if options.paper == "all" else (options.paper,))]
    if options.claim and not any(one.claims for one in papers):
        raise RunError(f"--claim {options.claim}: no such claim; `python -m models papers` lists them")
    work = engine.Work(
        out / "runs",
        named_tasks(papers, options),
        data_dir=options.data_dir,
        backend=options.backend or ("numpy" if options.quick else "auto"),
        say=engine.say_to_bar,
    )
    todo = len(work.missing())
    print(f"{len({task.key for task in work.tasks.values()})} runs, {todo} of them to be done; into {out}", flush=True)
    if options.download and any("cifar10" in one.data for one in papers):
        from models.data.cifar10 import download

        download()
    begin = partial(engine.cluster, options.dask) if options.dask else partial(engine.processes, options.jobs)
    try:
        if not options.no_runs:
            work.do(begin)
    except KeyboardInterrupt:
        print(f"{len(work.missing())} runs are missing; the same command goes on with them", flush=True)
        raise
    for one in papers:
        conclude(one, work, out, options)
    print_verdicts(out, papers)
    write_report(out, command_line(options), time.perf_counter() - began, todo - len(work.missing()))
    print(f"{time.perf_counter() - began:.0f} s; written to {out / 'report.html'}")
    return 0


def selected(one: Paper, options: argparse.Namespace) -> Paper:
    """The paper with the claim that was asked for alone, and the figures of its runs; all tasks quick if so."""
    if options.claim:
        claims = [claim for claim in one.claims if claim.id == options.claim]
        known = {task.key for claim in claims for task in claim.tasks.values()}
        figures = [figure for figure in one.figures if {task.key for task in figure.tasks.values()} <= known]
        one = replace(one, claims=claims, figures=figures)
    return one


def tasks_of(part: Claim | Figure, seed: int, quick: bool) -> dict[str, Task]:
    """The part's tasks with this seed, as they are to be run."""
    return {
        label: replace(task.quick() if quick else task, seed=seed + task.seed) for label, task in part.tasks.items()
    }


def named_tasks(papers: list[Paper], options: argparse.Namespace) -> dict[str, Task]:
    """All tasks of the papers and their names, for every seed."""
    made: dict[str, Task] = {}
    known: set[str] = set()
    for one in papers:
        for seed in range(options.seeds):
            parts: list[Claim | Figure] = [*one.claims, *one.figures]
            for part in parts:
                name = part.id if isinstance(part, Claim) else f"{one.name} {part.name}"
                for label, task in tasks_of(part, seed, options.quick).items():
                    if task.key not in known:
                        known.add(task.key)
                        made[f"{name} {label}" + f", seed {seed}" * (options.seeds > 1)] = task
    return made


def records_of(part: Claim | Figure, work: engine.Work, seed: int, quick: bool) -> dict[str, Any] | str:
    """The records of the part's tasks by label, or why there are none."""
    found = {}
    for label, task in tasks_of(part, seed, quick).items():
        record = engine.load(work.folder, task)
        if record is None:
            return work.failures.get(task.key, "not done")
        found[label] = record
    return found


def conclude(one: Paper, work: engine.Work, out: Path, options: argparse.Namespace) -> None:
    """Write a paper's results.json, its figures, and what the report says of it."""
    folder = out / one.name
    folder.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    for claim in one.claims:
        by_seed, missing = {}, ""
        for seed in range(options.seeds):
            found = records_of(claim, work, seed, options.quick)
            if isinstance(found, str):
                missing = found
            else:
                by_seed[seed] = found
        outcomes.append(judge(claim, by_seed, missing, options.quick))
    figures = []
    for figure in one.figures:
        found = records_of(figure, work, 0, options.quick)
        if not isinstance(found, str):
            write_atomically(folder / f"{figure.name}.png", figure.draw(found))
            figures.append({"name": figure.name, "caption": figure.caption})
    merge(folder, [outcome.to_json() for outcome in outcomes], figures, one)


def merge(folder: Path, results: list[dict[str, Any]], figures: list[dict[str, str]], one: Paper) -> None:
    """Put the results beside those of other claims that the folder holds already, in the paper's order."""
    order = [claim.id for claim in paper(one.name).claims]
    before = read_json(folder / ABOUT) if (folder / ABOUT).is_file() else {"results": [], "figures": []}
    fresh = {result["id"] for result in results}
    merged = results + [old for old in before["results"] if old["id"] not in fresh and old["id"] in order]
    merged.sort(key=lambda result: order.index(result["id"]))
    names = {figure["name"] for figure in figures}
    drawn = figures + [old for old in before["figures"] if old["name"] not in names]
    places = [figure.name for figure in paper(one.name).figures]
    drawn = sorted((f for f in drawn if f["name"] in places), key=lambda figure: places.index(figure["name"]))
    write_json(folder / RESULTS, merged)
    write_json(folder / ABOUT, {"results": merged, "figures": drawn})


def print_verdicts(out: Path, papers: list[Paper]) -> None:
    """A line for each claim."""
    for one in papers:
        chosen = {claim.id for claim in one.claims}
        for result in read_json(out / one.name / ABOUT)["results"]:
            if result["id"] in chosen:
                text = "; ".join(f"{check['what']}: {check['measured']}" for check in result["checks"])
                print(f"{result['id']}: {result['verdict']}: {text or result['note']}")


def command_line(options: argparse.Namespace) -> str:
    """The command that makes the same report."""
    parts = ["python -m models reproduce", options.paper]
    parts += [f"--claim {options.claim}"] * bool(options.claim) + ["--quick"] * options.quick
    parts += [f"--seeds {options.seeds}"] * (options.seeds > 1) + [f"--jobs {options.jobs}"]
    return " ".join(parts)
