"""The paper's tables: every row there, numbers of records in their places, verdicts computed."""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
from html import unescape
from itertools import pairwise
from pathlib import Path

import attrs
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import ttest_ind, ttest_rel

import trinas as tn
from examples.sr_trilevel import tables
from examples.sr_trilevel.claims import CLAIMS, MEASURES, Claim, compared, interval
from examples.sr_trilevel.paper import command, counts, paper_tables
from examples.sr_trilevel.recipes import find_recipe
from examples.sr_trilevel.results import Results, provenance
from examples.sr_trilevel.sheets import Sheet
from examples.sr_trilevel.space import paper_architectures
from examples.sr_trilevel.tables import differences, filled, main, sheets

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE, DRAWINGS = DOCS / "paper.md", DOCS / "assets" / "genotypes"

# Of every table, added up from the paper: rows, parameters in M, GFLOPS, PSNR by set, and blocks
# on all paths.
SUMS = {
    "1": (7, 21.67, 1872.7, [208.89, 186.30], 16),
    "2": (5, 20.51, 1846.6, [159.94, 142.40], 13),
    "3": (6, 4.237, 696.85, [172.91], 0),
    "4": (3, 1.44, 471.16, [91.00, 81.70], 19),
    "5": (2, 0.81, 272.19, [60.68, 54.57], 11),
    "6": (2, 0.86, 232.78, [60.66, 54.51], 6),
    "7": (1, 0.34, 117.4, [30.34, 27.29], 6),
    "8": (1, 0.24, 15.4, [29.80, 27.06], 3),
    "9": (1, 0.51, 33.3, [31.62, 28.26], 6),
    "10": (1, 0.27, 17.33, [28.52], 4),
}
PROTOCOL = "a protocol"


def run_of(seed=0, *, psnr=29.0, params=10_000, path="a-b", alpha=0.0, gap=0.0, genotype=None):
    """One run as a study puts it down."""

    def row(psnr):
        scores = {"psnr": psnr, "ssim": 0.8, "protocol": PROTOCOL}
        sets = {"Set5": {"psnr": psnr, "ssim": 0.8}, "Set14": {"psnr": psnr - 2, "ssim": 0.7}}
        return {**scores, "params": params, "macs": params * 65536, "sets": sets}

    stages = {"bicubic": row(28.4), "supernet": row(25.0 + gap), "derived": row(25.0)}
    return {
        "seconds": 60.0,
        "seed": seed,
        "path": path,
        "entropy": {"alpha": alpha, "beta": alpha / 2},
        "steps": [500, 1500],
        "stages": {**stages, "trained": row(psnr)},
        "genotype": {"decisions": {"seed": seed} if genotype is None else genotype},
        "curve": [["search", 500, 20.0], ["train", 500, psnr - 1], ["train", 1500, psnr]],
    }


def record_of(recipe, runs, data="T91"):
    return {
        "recipe": recipe,
        "command": f"python -m examples.sr_trilevel.study {recipe} --seeds 0 1 --data {data}",
        "date": "2026-01-02",
        "hardware": "an abacus",
        "torch": "2.0.0",
        "trinas": "0.1.0",
        "runs": runs,
    }


def results_of(*records, **options):
    return Results(records={record["recipe"]: record for record in records}, **options)


def lines(sheet, first):
    """The lines of the row that begins with `first`."""
    found, inside = [], False
    for row in sheet.rows:
        inside = row[0] == first or (inside and not row[0])
        found += [row] if inside else []
    return found


# -- the paper's side ----------------------------------------------------------------------


def test_every_row_of_the_paper_is_there():
    for name, table in paper_tables().items():
        rows = table.rows
        psnr = [sum(values) for values in zip(*(row.psnr for row in rows), strict=True)]
        blocks = sum(len(row.path) for row in rows if isinstance(row.path, list))
        many, params, gflops, scores, on_paths = SUMS[name]
        assert (len(rows), blocks) == (many, on_paths)
        assert sum(row.params_m for row in rows) == pytest.approx(params)
        assert sum(row.gflops for row in rows) == pytest.approx(gflops)
        assert psnr == pytest.approx(scores)
        assert len(psnr) == len(table.sets)
    assert list(paper_tables()) == list(SUMS)


def test_every_row_has_what_runs_it_or_a_reason():
    for table in paper_tables().values():
        for row in table.rows:
            assert bool(row.variants) + bool(row.weights) + bool(row.note) == 1, row.label
            for variant in row.variants:
                assert find_recipe(f"paper/{variant}").name == f"paper/{variant}"


def test_as_published_is_the_backbone_and_the_loss_of_the_table():
    for name, table in paper_tables().items():
        for row in table.rows:
            if row.variants:
                recipe = find_recipe(f"paper/{row.variants[0]}")
                letter = "B" if row.label.endswith("-B") else "A"
                if int(name) < 7:
                    assert recipe.backbone == letter
                else:  # the network that is printed there
                    assert recipe.network is not None
                    assert recipe.network.startswith(f"table{name}_")
                    assert recipe.network.endswith(letter)
                visual = name in ("1", "4", "5", "6", "7", "8")
                assert (recipe.loss.perceptual > 0, "--features" in table.options) == (visual,) * 2


def test_networks_are_counted_as_reported():
    for table in paper_tables().values():
        for row in table.rows:
            if row.architecture is not None:
                params, macs = counts(row.architecture)
                # Table 7 has the parameters of one network and the cost of another: see its note.
                loose = 0.04 if row.architecture == "table7_visual_A" else 0.01
                assert params / 1e6 == pytest.approx(row.params_m, abs=loose)
                assert macs / 1e9 == pytest.approx(row.gflops, rel=5e-3)
                entry = paper_architectures().get(row.architecture)
                assert entry is None or row.path in (None, entry["path"])


# -- ours ----------------------------------------------------------------------------------


def test_without_records_nothing_was_run_and_every_command_is_there():
    for name, make in sheets().items():
        text = make(Results()).text()
        assert "not run" in text
        assert "2026" not in text or name == "3"
    text = sheets()["4"](Results()).text()
    assert "study tiny/lambda-0 tiny/lambda-0.01 tiny/lambda-0.1 --data T91" in text
    assert "study paper/A+visual+lambda-0 paper/A+visual+lambda-0.01 paper" in text
    assert "evaluate RRDB_PSNR_x4.pth --sets Set5 Set14" in sheets()["2"](Results()).text()


def test_a_record_fills_its_row_and_no_other():
    runs = [
        run_of(0, psnr=29.0, params=10_000),
        run_of(1, psnr=29.2, params=30_000),
        run_of(2, psnr=29.4, params=20_000, path="a"),
    ]
    sheet = sheets()["4"](results_of(record_of("tiny/lambda-0.01", runs)))

    paper, ours = lines(sheet, "lambda = 0.01")
    assert paper == ("lambda = 0.01", "paper", "a-a-b-a-a-b", "0.52", "169.69", "30.34", "27.20")
    assert ours[1:5] == ("`tiny/lambda-0.01`, 3 runs", "a-b (2), a", "0.020 ± 0.010", "1.31 ± 0.66")
    assert ours[5:] == ("29.20 ± 0.20", "27.20 ± 0.20")
    assert lines(sheet, "lambda = 0")[-1][1:3] == ("ours: not run", "")
    notes = "\n".join(sheet.notes)
    assert "2026-01-02, an abacus, torch 2.0.0, trinas 0.1.0" in notes
    assert f"Protocol: {PROTOCOL}." in notes


def test_the_better_size_and_the_variant_as_published_come_first():
    some = [
        record_of(name, [run_of(0)])
        for name in ("tiny/lambda-0", "paper/lambda-0", "paper/A+visual+lambda-0")
    ]

    def found(records, **options):
        sheet = sheets()["4"](results_of(*records, **options))
        return [line[1] for line in lines(sheet, "lambda = 0")[1:]]

    assert found(some) == ["`paper/A+visual+lambda-0`, 1 run", "`tiny/lambda-0`, 1 run"]
    assert found(some[:2]) == ["`paper/lambda-0`, 1 run", "`tiny/lambda-0`, 1 run"]
    assert found(some, sizes=("tiny",)) == ["`tiny/lambda-0`, 1 run"]
    assert found(some[1:], sizes=("tiny",)) == ["ours: not run"]


def test_a_table_can_have_records_of_its_own():
    own = record_of("paper/lambda-0.1", [run_of(0, params=1)])
    other = record_of("paper/lambda-0.1", [run_of(0, params=2_000)])
    results = Results(records={"aim2020:paper/lambda-0.1": own, "paper/lambda-0.1": other})

    assert results.found(["lambda-0.1"], "aim2020") == [own]
    assert results.found(["lambda-0.1"]) == [other]


def test_the_time_of_a_search_is_that_of_its_steps():
    def timed(pretrain, search):
        phases = {
            "pretrain": {"steps": 10, "seconds": pretrain},
            "search": {"steps": 20, "seconds": search},
        }
        return {**run_of(), "timing": {"device": "cpu", "threads": 2, "phases": phases}}

    records = [
        record_of("tiny/A", [timed(10.0, 20.0), timed(30.0, 60.0)]),
        record_of("tiny/softmax", [run_of()]),  # from before there were times
        record_of("tiny/table9", [{**run_of(), "timing": {"phases": {"train": {}}}}]),
    ]
    paper, ours = sheets()["times"](results_of(*records)).rows

    assert paper[0] == "paper"
    assert ours[:5] == ("`tiny/A`", "10", "2.00 ± 1.41", "20", "2.00 ± 1.41")
    assert float(ours[5]) == pytest.approx(57_500 * 4 / 86_400, abs=0.01)
    assert ours[6] == "an abacus, 2 threads a run"
    assert sheets()["times"](Results()).rows[-1][-1] == "not run"


def test_what_differs_from_the_paper_is_found_by_comparing():
    table = paper_tables()["2"]
    row = table.rows[-1]
    command_as_published = command(table, row.variants[:1], "paper")

    same = {"recipe": "paper/lambda-0.1", "command": command_as_published}
    assert differences(table, row, same) == []
    tiny = differences(table, row, record_of("tiny/lambda-0.1", []))
    assert {"16 channels (paper: 64)", "500 steps of search (paper: 115,000)"} <= set(tiny)
    assert "trained on T91 (paper: DIV2K and Flickr2K)" in tiny
    given = paper_tables()["9"]
    network = differences(given, given.rows[0], record_of("tiny/table9", []))
    assert not any("channels" in line or "search" in line for line in network)


def test_published_networks_are_rows_or_teachers():
    one = {"name": "Set5", "psnr": 32.7, "ssim": 0.9, "protocol": PROTOCOL}
    report = {"network": "RRDBNet", "params": 16_697_987, "macs_256x256": None, "sets": [one]}
    results = Results(networks={"RRDB_PSNR_x4": report})

    ours = lines(sheets()["2"](results), "ESRGAN (PSNR)")[-1]
    assert ours == ("", "", "`RRDB_PSNR_x4.pth`", "", "16.698", "", "32.70", "")
    (row,) = sheets()["teachers"](results).rows
    assert row == ("`RRDB_PSNR_x4`", "RRDBNet", "16.698", "", "32.70")


def test_figure_4_is_a_curve():
    search = record_of("tiny/lambda-0.1", [run_of(0, psnr=29.0), run_of(1, psnr=29.4)])
    scratch = record_of("tiny/scratch", [run_of(0, psnr=28.0), run_of(1, psnr=28.4)])
    sheet = sheets()["figure-4"](results_of(search, scratch))

    assert sheet.rows[0] == ("500", "28.20 ± 0.28", "27.20 ± 0.28", "+1.00")
    assert [row[0] for row in sheet.rows] == ["500", "1,500"]
    assert "Set5" in "\n".join(sheet.notes)
    assert "tiny" in sheet.title


# -- claims --------------------------------------------------------------------------------


def judged(first, second, measure="PSNR, dB", direction="more", same=False):
    """Verdict on runs of these PSNR."""
    claim = Claim("words", "whose", measure, "one", (direction, "other"))
    one = record_of("tiny/one", [run_of(i, psnr=p) for i, p in enumerate(first)])
    runs = [run_of(i, psnr=p, genotype=None if same else {}) for i, p in enumerate(second)]
    numbers = compared(claim, one, record_of("tiny/other", runs))
    assert numbers is not None
    return numbers[-1]


def test_a_verdict_follows_from_the_numbers():
    assert judged([29.0, 29.1, 29.2], [28.0, 28.1, 28.2]) == "holds"
    assert judged([29.0, 29.1, 29.2], [28.0, 28.1, 28.2], direction="less") == "does not hold"
    assert judged([28.0, 28.1, 28.2], [29.0, 29.1, 29.2]) == "does not hold"
    assert judged([29.0, 29.2, 29.1], [28.5, 29.3, 28.9]) == "open"
    assert judged([29.0], [28.0]) == "one run: no verdict"
    assert judged([29.0, 29.0], [29.0, 29.0]) == "open"
    assert judged([29.0, 29.0], [29.05, 29.05], direction="no less") == "holds"
    assert judged([29.0, 29.0], [29.15, 29.15], direction="no less") == "does not hold"
    assert judged([29.0, 29.2], [29.0, 29.2], direction="no less") == "open"


def test_scores_of_other_pictures_are_not_compared():
    claim = Claim("words", "whose", "PSNR, dB", "one", ("more", "other"))
    one, other = (record_of(name, [run_of(i) for i in range(3)]) for name in ("r/one", "r/other"))
    assert compared(claim, one, other) is not None
    for run in other["runs"]:
        sets = run["stages"]["trained"]["sets"]
        run["stages"]["trained"]["sets"] = dict(reversed(sets.items()))

    numbers = compared(claim, one, other)
    assert numbers is not None
    assert numbers[2:] == ("", "of other pictures")
    same = compared(attrs.evolve(claim, measure="multiply-adds, G"), one, other)
    assert same is not None
    assert same[3] != "of other pictures"


def test_the_same_networks_are_compared_in_pairs():
    first, second = [28.0, 29.0, 30.0], [27.9, 28.85, 29.9]

    assert judged(first, second) == "open"
    assert judged(first, second, same=True) == "holds"
    assert judged(second, first, same=True) == "does not hold"


@given(
    st.lists(st.floats(20, 40), min_size=2, max_size=6),
    st.lists(st.floats(20, 40), min_size=2, max_size=6),
)
def test_a_verdict_is_that_of_a_t_test(first, second):
    """Of Welch's, or of Student's in pairs, as scipy makes them."""
    spreads = [statistics.stdev(x) for x in (first, second)]
    assume(min(spreads) > 1e-3)
    margin = interval(first, second, pairs=False)
    assert margin is not None
    test = ttest_ind(first, second, equal_var=False)
    low, high = test.confidence_interval(0.95)
    assert high - low == pytest.approx(2 * margin, rel=1e-9)

    both = min(len(first), len(second))
    one, other = first[:both], second[:both]
    assume(statistics.stdev([a - b for a, b in zip(one, other)]) > 1e-3)
    margin = interval(one, other, pairs=True)
    assert margin is not None
    low, high = ttest_rel(one, other).confidence_interval(0.95)
    assert high - low == pytest.approx(2 * margin, rel=1e-9)


def test_claims_are_filled_from_two_records_of_one_size():
    sparse = [run_of(i, alpha=0.0, gap=0.0, genotype={"i": i}) for i in (0, 1)]
    soft = [run_of(i, alpha=0.9 + i / 100, gap=5.0 + i) for i in (0, 1)]
    records = [record_of("tiny/lambda-0.1", sparse), record_of("tiny/softmax", soft)]
    rows = {row[2]: row for row in sheets()["claims"](results_of(*records)).rows}

    row = rows["gap either way, dB: `lambda-0.1` less than `softmax`"]
    assert row[3:] == ("tiny", "0.00 ± 0.00", "5.50 ± 0.71", "-5.50 ± 6.35", "open")
    row = rows["entropy of paths: `lambda-0.1` less than `softmax`"]
    assert row[4:6] == ("0.00 ± 0.00", "0.45 ± 0.00")
    assert rows["gap either way, dB: `lambda-0.1` less than `gumbel`"][3:] == (
        "",
        "",
        "",
        "",
        "not run",
    )
    apart = [records[0], {**records[1], "recipe": "paper/softmax"}]
    again = {row[2]: row for row in sheets()["claims"](results_of(*apart)).rows}
    assert again["gap either way, dB: `lambda-0.1` less than `softmax`"][-1] == "not run"


def test_a_search_without_weights_of_options_has_no_entropy():
    run = {**run_of(0), "entropy": None}
    del run["stages"]["supernet"]
    record = record_of("tiny/random", [run])

    assert MEASURES["entropy of operations"](record) is None
    assert MEASURES["gap either way, dB"](record) is None
    (row,) = sheets()["variants"](results_of(record)).rows
    assert row[4:8] == ("", "", "", "")


def test_claims_name_variants_and_measures_that_there_are():
    for claim in CLAIMS:
        direction, other = claim.than
        assert direction in ("less", "more", "no less")
        assert claim.measure in MEASURES
        assert find_recipe(f"tiny/{claim.variant}") != find_recipe(f"tiny/{other}")
    about = {claim.measure for claim in CLAIMS}
    assert about == set(MEASURES), "every measure is asked about"


def test_early_is_a_third_of_training():
    assert MEASURES["PSNR after a third of training, dB"](record_of("r", [run_of(psnr=29.0)])) == [
        28.0
    ]


# -- page, drawings, command line ----------------------------------------------------------


def test_the_page_holds_the_present_results():
    page = PAGE.read_text(encoding="utf-8")

    hint = "python -m examples.sr_trilevel.tables --page docs/paper.md"
    assert filled(page, Results.load()) == page, hint
    assert re.findall(r"<!-- results: ([\w-]+) -->", page) != []
    assert set(re.findall(r"<!-- results: ([\w-]+) -->", page)) == set(sheets())


def test_the_readme_says_what_the_results_say():
    """Every number of its summary, found where it was put down."""
    text = " ".join((DOCS.parent / "README.md").read_text(encoding="utf-8").split())
    found = Results.load()
    rows = {row[2]: row for row in sheets()["claims"](found).rows}

    def difference(words):
        first, _, second = rows[words][6].removesuffix(" (in pairs)").partition(" ± ")
        return float(first), float(second), rows[words][-1]

    gap, _, said = difference("gap either way, dB: `lambda-0.1` less than `softmax`")
    assert (f"softmax loses {-gap:.2f} dB of" in text, said) == (True, "holds")
    early = "PSNR after a third of training, dB: `lambda-0.1` more than `scratch`"
    mean, margin, said = difference(early)
    assert (f"{mean:+.2f} ± {margin:.2f} dB after a third" in text, said) == (True, "holds")
    assert difference("PSNR, dB: `lambda-0.1` more than `scratch`")[-1] == "open"
    mean, margin, said = difference("PSNR, dB: `efficient` more than `lambda-0.1`")
    assert (f"by {mean:.2f} ± {margin:.2f} dB on Set5" in text, said) == (True, "holds")
    bsrn, table9 = (found.records[f"cores/{name}"]["runs"][0] for name in ("bsrn_m", "table9"))
    told = {"{:.2f} M parameters comes to {:.2f} dB": bsrn, "{:.2f} M to {:.2f} dB": table9}
    for words, run in told.items():
        trained = run["stages"]["trained"]
        assert words.format(trained["params"] / 1e6, trained["sets"]["Set5"]["psnr"]) in text
    (paper,) = paper_tables()["9"].rows
    assert f"the paper has {paper.psnr[0]} dB for it" in text
    steps = find_recipe("paper/table9").train.steps / table9["steps"][1]
    assert f"{steps:.0f} times as many steps" in text
    mean, margin, said = difference("PSNR, dB: `today` more than `lambda-0.1`")
    assert (f"by {mean:.2f} ± {margin:.2f} dB on Set5 with six seeds" in text, said) == (
        True,
        "holds",
    )
    mean, margin, said = difference("PSNR, dB: `today` more than `random`")
    assert (f"by {mean:.2f} ± {margin:.2f} dB, which is open" in text, said) == (True, "open")
    mean, margin, said = difference("PSNR, dB: `today` more than `filled`")
    assert (f"{mean:+.2f} ± {margin:.2f} dB at equal" in text, said) == (True, "open")
    blocks = rows["blocks on the path: `today` more than `lambda-0.1`"]
    at = [float(blocks[column].partition(" ±")[0]) for column in (4, 5)]
    assert f"ends at {at[0]:.1f} blocks instead of {at[1]:.1f}" in text
    assert difference("PSNR, dB: `lambda-0.1` more than `random`")[-1] == "does not hold"
    for words in (
        "PSNR, dB: `third` more than `trellis+third`",
        "PSNR, dB: `third` more than `bilevel+third`",
    ):
        assert difference(words)[-1] == "open"


def test_a_page_that_is_behind_is_found():
    page = PAGE.read_text(encoding="utf-8")
    results = results_of(record_of("tiny/lambda-0", [run_of(psnr=12.34)]))

    assert "12.34" in filled(page, results)
    with pytest.raises(tn.errors.UnknownNameError, match="figure-5"):
        filled("<!-- results: figure-5 -->\n<!-- end -->", Results())


def operations_of(entry):
    """What a drawing of an architecture has to say: operation and channels of every slot."""
    return [
        (slot["op"], f"{before['width'] if k else 64} → {slot['width']}")
        for cell in entry["cells"]
        for k, (before, slot) in enumerate(zip([None, *cell], cell))
    ]


@pytest.mark.parametrize("name", paper_architectures())
def test_the_drawings_show_the_networks(name):
    svg = (DRAWINGS / f"{name}.svg").read_text(encoding="utf-8")
    entry = paper_architectures()[name]
    words = [unescape(word).strip() for word in re.findall(r"<text[^>]*>([^<]*)</text>", svg)]
    known = {"conv1x1", "conv3x3", "resblock", "dwsblock"}

    drawn = [(word, after) for word, after in pairwise(words) if word in known]
    assert sorted(drawn) == sorted(operations_of(entry))
    path = "-".join("ab"[kind] for kind in entry["path"])
    assert {path[: 2 * k + 1] for k in range(len(entry["path"]))} <= set(words)
    assert len(svg) < 60_000


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_the_drawings_can_be_made_again(tmp_path, capsys):
    assert main(["--draw", str(tmp_path / "new")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    said = subprocess.run(["dot", "-V"], capture_output=True, text=True, check=True).stderr
    for file in (tmp_path / "new").iterdir():
        committed = (DRAWINGS / file.name).read_bytes()
        version = re.search(rb"graphviz version (\S+)", committed)
        assert version is not None
        if version[1].decode() in said:  # another version places things elsewhere
            assert file.read_bytes() == committed


def test_the_command_prints_what_is_asked_for(tmp_path, capsys):
    record = record_of("tiny/softmax", [run_of(psnr=29.87)])
    (tmp_path / "tiny-softmax.json").write_text(json.dumps(record))
    below = tmp_path / "aim2020"
    below.mkdir()
    (below / "x.json").write_text(json.dumps(record_of("tiny/lambda-0.1", [run_of(psnr=27.65)])))
    (tmp_path / "nothing").mkdir()
    given = ["--results", str(tmp_path), "--networks", str(tmp_path / "nothing")]

    assert main([*given, "--table", "5", "3", "--size", "tiny"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Table 5")
    assert "29.87" in text
    assert "Table 4" not in text
    assert main([*given, "--table", "5", "--size", "paper", "--markdown"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("## Table 5")
    assert "29.87" not in text

    page = tmp_path / "page.md"
    page.write_text("as it was")
    assert main(["--results", str(tmp_path / "nowhere"), "--page", str(page)]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert page.read_text() == "as it was"
    page.write_text("before\n<!-- results: 5 -->\nold\n<!-- end -->\nafter\n")
    assert main([*given, "--page", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("before\n<!-- results: 5 -->\n\n| row |")
    assert text.endswith("\n\n<!-- end -->\nafter\n")
    assert "29.87" in text
    assert "old" not in text


def test_a_sheet_refuses_rows_that_do_not_fit():
    with pytest.raises(ValueError, match="a row has not 2 cells"):
        Sheet(title="t", head=("a", "b"), rows=[("1",)])
    assert "1 \\| 2" in Sheet(title="t", head=("a",), rows=[("1 | 2",)]).markdown()


def test_records_that_differ_in_their_recipe_alone_share_a_line():
    names = ("tiny/lambda-0", "tiny/softmax")
    (line, protocol) = provenance([record_of(name, [run_of()]) for name in names])

    assert "study tiny/lambda-0 tiny/softmax --seeds 0 1 --data T91`" in line
    assert protocol == f"Protocol: {PROTOCOL}."
    elsewhere = {**record_of("tiny/A", [run_of()]), "hardware": "a slide rule"}
    assert len(provenance([record_of("tiny/softmax", [run_of()]), elsewhere])) == 3


def test_every_table_is_offered():
    assert tables.sheets().keys() >= {str(n) for n in range(1, 11)} | {"figure-4", "claims"}
