"""Every table of the paper beside what was measured here.

    python -m examples.sr_trilevel.tables --table 4 claims

NAME is a table of the paper (1 to 10), figure-4, claims (what the method promises, with verdicts),
variants (everything measured), times (of a step of a search) or teachers (published networks).
Ours come from what `study` and `evaluate --json` put down; what nobody has run says so, with the
command that runs it.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import trinas as tn
from examples.sr_trilevel.claims import claims_sheet
from examples.sr_trilevel.command import ending, parser_of
from examples.sr_trilevel.imaging import existing_folder
from examples.sr_trilevel.paper import (
    PaperRow,
    Table,
    command,
    counts,
    evaluation,
    paper_tables,
)
from examples.sr_trilevel.recipe import Recipe
from examples.sr_trilevel.recipes import find_recipe
from examples.sr_trilevel.records import RESULTS, Mean, Record, paths_of, recipe_of, scores
from examples.sr_trilevel.results import (
    NETWORKS,
    NOT_RUN,
    SIZES,
    Results,
    curves,
    provenance,
    recipe_size,
    scaled,
    size_of,
    variants_sheet,
    watched,
)
from examples.sr_trilevel.sheets import Sheet
from examples.sr_trilevel.space import paper_architecture, paper_architectures
from examples.sr_trilevel.writing import writing

_PLACE = re.compile(r"(<!-- results: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


# -- tables of the paper -------------------------------------------------------------------


def paper_sheet(table: Table, results: Results) -> Sheet:
    """A table with a line for the paper's figures of every row and one for each size of ours."""
    rows, records = [], []
    for row in table.rows:
        rows.append(_reported(row))
        if row.architecture is not None:
            rows.append(_counted(row.architecture, len(table.sets)))
        found = results.found(row.variants, table.within)
        rows += [_measured(record, table) for record in found] or [_scored(row, table, results)]
        records += [(row, record) for record in found]
    if any(row.type for row in table.rows):
        types = {row.label: row.type or "" for row in table.rows}
        rows = [[label, types.get(label, ""), *rest] for label, *rest in rows]
        head = ("row", "type")
    else:
        head = ("row",)
    return Sheet(
        title=table.title,
        head=(*head, "whose", "path", "params, M", "GFLOPS", *(f"{s}, dB" for s in table.sets)),
        rows=rows,
        notes=[
            *([table.about] if table.about else []),
            *_notes_of_architectures(table),
            *_conditions(table, records),
            *_commands(table, results),
            *provenance([record for _, record in records]),
        ],
    )


def _reported(row: PaperRow) -> list[str]:
    path = row.path if isinstance(row.path, str) else None
    if row.path is not None and path is None:
        path = "-".join("ab"[int(kind)] for kind in row.path)
    psnr = [f"{value:.2f}" for value in row.psnr]
    return [row.label, "paper", path or "", f"{row.params_m:g}", f"{row.gflops:g}", *psnr]


def _counted(architecture: str, sets: int) -> list[str]:
    params, macs = counts(architecture)
    return ["", "counted here", "", f"{params / 1e6:.3f}", f"{macs / 1e9:.2f}", *[""] * sets]


def _measured(record: Record, table: Table) -> list[str]:
    """What a study says."""
    params, macs = size_of(record, "params"), size_of(record, "macs")
    runs = len(record["runs"])
    whose = f"`{record['recipe']}`, {runs} run{'s' if runs > 1 else ''}"
    psnr = [_text(scores(record, "trained", name)) for name in table.sets]
    return ["", whose, paths_of(record), scaled(params, 1e6, 3), scaled(macs, 1e9, 2), *psnr]


def _scored(row: PaperRow, table: Table, results: Results) -> list[str]:
    """What the published weights score here, or that nothing was run."""
    name = None if row.weights is None else Path(row.weights).stem
    if name is None or name not in results.networks:
        return ["", f"ours: {NOT_RUN}", "", "", "", *[""] * len(table.sets)]
    report = results.networks[name]
    psnr = {one["name"]: f"{one['psnr']:.2f}" for one in report["sets"]}
    return ["", f"`{row.weights}`", "", *_size(report), *(psnr.get(s, "") for s in table.sets)]


def _text(mean: Mean | None) -> str:
    return NOT_RUN if mean is None else str(mean)


def _size(report: Record) -> list[str]:
    macs = report["macs_256x256"]
    return [f"{report['params'] / 1e6:.3f}", "" if macs is None else f"{macs / 1e9:.2f}"]


def _notes_of_architectures(table: Table) -> list[str]:
    known = paper_architectures()
    names = dict.fromkeys(row.architecture for row in table.rows)
    return [f"Counted: {known[name]['note']}" for name in names if name in known]


def _conditions(table: Table, records: Sequence[tuple[PaperRow, Record]]) -> list[str]:
    """In what ours differ from the paper, rows that differ alike together."""
    alike: dict[str, list[str]] = {}
    for row, record in records:
        words = "; ".join(differences(table, row, record)) or "nothing that is known"
        alike.setdefault(words, []).append(f"{row.label}, `{recipe_size(record)}`")
    return [f"Ours differ in ({'; '.join(labels)}): {words}." for words, labels in alike.items()]


def differences(table: Table, row: PaperRow, record: Record) -> list[str]:
    """In what a run differs from the one that the paper describes, ours first.

    Found by comparing recipes and commands, so it holds for any record.

    >>> record = {"recipe": "paper/softmax", "command": "study paper/softmax --data T91"}
    >>> table = paper_tables()["5"]
    >>> for line in differences(table, table.rows[0], record):
    ...     print(line)
    backbone B (paper: A)
    loss: content (paper: content, perceptual)
    194,400 steps of training (paper: 583,200)
    trained on T91 (paper: DIV2K and Flickr2K)
    targets by the HR pictures (paper: RRDB_ESRGAN_x4.pth)
    """
    ours, published = recipe_of(record), find_recipe(f"paper/{row.variants[0]}")
    pairs = [
        (what.format(mine), theirs)
        for what, of in _CONDITIONS.items()
        if (mine := of(ours)) != (theirs := of(published))
    ]
    given, wanted = _options_in(record["command"]), _options_in(table.options)
    if given.get("--data") != wanted.get("--data"):
        pairs.append((f"trained on {given.get('--data', 'five photographs')}", table.data))
    if given.get("--teacher") != wanted.get("--teacher"):
        teacher = given.get("--teacher", "the HR pictures")
        pairs.append((f"targets by {teacher}", wanted.get("--teacher", "the HR pictures")))
    return [f"{mine} (paper: {theirs})" for mine, theirs in pairs]


def _searched(of: Callable[[Recipe], Any]) -> Callable[[Recipe], Any]:
    """Nothing where a network is given: then the space and the search decide nothing."""
    return lambda recipe: None if recipe.network is not None else of(recipe)


_CONDITIONS: dict[str, Callable[[Recipe], Any]] = {
    "backbone {}": _searched(lambda recipe: recipe.backbone),
    "{} channels": _searched(lambda recipe: recipe.features),
    "at most {} cells and convolutions or upsamplings": _searched(
        lambda recipe: f"{recipe.at_most['a']} + {recipe.at_most['b']}"
    ),
    "{} operations a cell": _searched(lambda recipe: recipe.slots),
    "{} widths a kernel": _searched(lambda recipe: len(recipe.ratios)),
    "{} over operations and paths": _searched(lambda recipe: recipe.relaxation),
    "{} steps of search": _searched(lambda recipe: f"{recipe.search.total_steps:,}"),
    "loss: {}": lambda recipe: "content, perceptual" if recipe.loss.perceptual else "content",
    "{} steps of training": lambda recipe: f"{round((1 + recipe.finetune) * recipe.train.steps):,}",
}
"""What of a recipe is compared with the paper's, in words."""


def _options_in(line: str) -> dict[str, str]:
    """What follows every option of a command, its first word."""
    words = shlex.split(line)
    return {word: after for word, after in pairwise(words) if word.startswith("--")}


def _commands(table: Table, results: Results) -> list[str]:
    """Commands for all rows that have one, and reasons for the others."""
    rows = [row for row in table.rows if row.variants]
    lines = []
    for size in results.sizes if rows else ():
        published = size == "paper"
        variants = [row.variants[0 if published else -1] for row in rows]
        words = "as published" if published else f"at the size `{size}`"
        lines.append(f"Run {words}: `{command(table, variants, size)}`.")
    lines += [
        f"{row.label}: `{evaluation(row.weights)}`."
        for row in table.rows
        if row.weights is not None
    ]
    lines += [f"{row.label}: {row.note}." for row in table.rows if row.note is not None]
    return lines


# -- further tables ------------------------------------------------------------------------


def figure_sheet(results: Results) -> Sheet:
    """Figure 4: PSNR during training, from the search's weights and from scratch."""
    pair = results.pair("lambda-0.1", "scratch")
    title = "Figure 4: training from the search and from scratch"
    about = (
        "The paper draws two curves without numbers, and says of them that from the search there "
        "is more PSNR, after fewer epochs."
    )
    if pair is None:
        table = paper_tables()["2"]
        commands = [command(table, ["lambda-0.1", "scratch"], size) for size in results.sizes]
        notes = [about, *(f"Run: `{line}`." for line in commands)]
        return Sheet(title=title, head=("step", "ours"), rows=[("", NOT_RUN)], notes=notes)
    search, scratch = (curves(record) for record in pair)
    rows = []
    for step in sorted(set(search) & set(scratch)):
        one, other = search[step], scratch[step]
        means = [Mean.of(one), Mean.of(other)]
        rows.append((f"{step:,}", *map(str, means), f"{means[0].mean - means[1].mean:+.2f}"))
    notes = [
        about,
        _reached(search, scratch),
        f"PSNR in dB on {watched(pair[0])}, mean over runs. The steps of the search itself are not "
        "counted.",
        *provenance(pair),
    ]
    head = ("step of training", "from the search", "from scratch", "difference")
    return Sheet(title=f"{title}, {recipe_size(pair[0])}", head=head, rows=rows, notes=notes)


def _reached(search: Mapping[int, list[float]], scratch: Mapping[int, list[float]]) -> str:
    """How early the one curve is where the other ends."""
    last = max(scratch)
    end = Mean.of(scratch[last]).mean
    first = next((step for step in search if Mean.of(search[step]).mean >= end), None)
    if first is None:
        return f"From the search, the last PSNR from scratch ({end:.2f} dB) is not reached."
    return (
        f"From the search, the last PSNR from scratch ({end:.2f} dB, after {last:,} steps) is "
        f"reached after {first:,}."
    )


def times_sheet(results: Results) -> Sheet:
    """What a step of every search took, and how long the paper's number of them would."""
    paper = find_recipe("paper").search
    published = {"pretrain": paper.pretrain_steps, "search": paper.search_steps}
    many = [f"{steps:,}" for steps in published.values()]
    rows: list[tuple[str, ...]] = [("paper", many[0], "", many[1], "", "8", "one Tesla V100")]
    records = []
    for record in results.asked():
        phases = [run.get("timing", {}).get("phases", {}) for run in record["runs"]]
        if not all(set(published) <= set(of) for of in phases):
            continue
        seconds = {
            phase: Mean.of([of[phase]["seconds"] / of[phase]["steps"] for of in phases])
            for phase in published
        }
        cells = [
            cell
            for phase, mean in seconds.items()
            for cell in (f"{phases[0][phase]['steps']:,}", str(mean))
        ]
        days = sum(published[phase] * seconds[phase].mean for phase in published) / 86_400
        device, threads = (record["runs"][0]["timing"][key] for key in ("device", "threads"))
        where = f"{threads} thread{'s' * (threads > 1)} a run" if device == "cpu" else device
        place = f"{record['hardware']}, {where}"
        rows.append((f"`{record['recipe']}`", *cells, f"{days:.2f}", place))
        records.append(record)
    head = ("search", "steps of pretraining", "seconds each", "steps of search", "seconds each")
    return Sheet(
        title="Time of a search",
        head=(*head, "days for the paper's steps", "on"),
        rows=rows if records else [*rows, ("ours", *[""] * 5, NOT_RUN)],
        notes=[
            f"Days for the paper's {many[0]} steps of pretraining and {many[1]} of search of this "
            "very space, at its own size: a smaller one has shorter steps. Steps of the search get "
            "shorter as branches reach zero.",
            *provenance(records),
        ],
    )


def teachers_sheet(results: Results) -> Sheet:
    """Published networks that were scored here: those that teach."""
    reports = results.networks
    sets = list(dict.fromkeys(one["name"] for r in reports.values() for one in r["sets"]))
    rows = []
    for name, report in reports.items():
        psnr = {one["name"]: f"{one['psnr']:.2f}" for one in report["sets"]}
        rows.append(
            (f"`{name}`", report["network"], *_size(report), *(psnr.get(s, "") for s in sets))
        )
    protocols = dict.fromkeys(one["protocol"] for r in reports.values() for one in r["sets"])
    return Sheet(
        title="Teachers",
        head=("weights", "network", "params, M", "GMACs", *(f"{name}, dB" for name in sets)),
        rows=rows or [("", NOT_RUN, "", "")],
        notes=[*(f"Protocol: {line}." for line in protocols), f"`{evaluation('WEIGHTS.pth')}`."],
    )


def sheets() -> dict[str, Callable[[Results], Sheet]]:
    """What makes every table, by name.

    >>> list(sheets())[-5:]
    ['figure-4', 'claims', 'variants', 'times', 'teachers']
    """

    def of(table: Table) -> Callable[[Results], Sheet]:
        return lambda results: paper_sheet(table, results)

    return {
        **{name: of(table) for name, table in paper_tables().items()},
        "figure-4": figure_sheet,
        "claims": claims_sheet,
        "variants": variants_sheet,
        "times": times_sheet,
        "teachers": teachers_sheet,
    }


# -- the page, the drawings and the command line -------------------------------------------


def filled(page: str, results: Results) -> str:
    """A page with its tables written anew: those between ``<!-- results: NAME -->`` and the end.

    Raises:
        UnknownNameError: the page wants a table that there is not.
    """
    known = sheets()

    def put(match: re.Match[str]) -> str:
        name = match[2]
        if name not in known:
            raise tn.errors.UnknownNameError(
                "no table of this name", got=name, fix=f"There are {', '.join(known)}."
            )
        return f"{match[1]}\n{known[name](results).markdown()}\n\n{match[3]}"

    return _PLACE.sub(put, page)


def draw(folder: Path, form: str = "svg") -> list[Path]:
    """Draw the paper's four networks into a folder.

    Raises:
        DrawingError: Graphviz is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [
        tn.draw(paper_architecture(name)[1]).render(folder / f"{name}.{form}")
        for name in paper_architectures()
    ]


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; returns 0, or 2 after an error, or 130 when interrupted."""
    options = _parser().parse_args(arguments)
    return ending(lambda: _go(options))


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("tables", __doc__)
    add = parser.add_argument
    add("--table", metavar="NAME", nargs="+", choices=list(sheets()), help="default: all")
    add("--size", choices=SIZES, help="of ours (default: all)")
    add("--results", metavar="DIR", default=str(RESULTS), help="what `study` put down")
    add("--networks", metavar="DIR", default=str(NETWORKS), help="files of `evaluate --json`")
    add("--markdown", action="store_true", help="print Markdown")
    add("--page", metavar="FILE", help="write the tables of this page anew instead")
    add("--draw", metavar="DIR", help="draw the paper's four networks there instead")
    return parser


def _go(options: argparse.Namespace) -> None:
    sizes = SIZES if options.size is None else (options.size,)
    if options.draw is not None:
        print("\n".join(map(str, draw(Path(options.draw)))))
        return
    for given in (options.results, options.networks):
        existing_folder(given)
    results = Results.load(Path(options.results), Path(options.networks), sizes)
    if options.page is not None:
        page = Path(options.page)
        text = filled(page.read_text(encoding="utf-8"), results)
        with writing(page) as aside:
            aside.write_text(text, encoding="utf-8")
        return
    for name in options.table or sheets():
        sheet = sheets()[name](results)
        print(
            f"## {sheet.title}\n\n{sheet.markdown()}\n" if options.markdown else f"{sheet.text()}\n"
        )


if __name__ == "__main__":
    sys.exit(main())
