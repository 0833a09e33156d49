"""The run from end to end: what it leaves, that it resumes exactly, what it refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from PIL import Image

import trinas as tn
from examples.sr_trilevel import runner, targets
from examples.sr_trilevel.data import make_pairs
from examples.sr_trilevel.imaging import to_uint8
from examples.sr_trilevel.recipes import RECIPES, VARIANTS, smoke
from examples.sr_trilevel.run import Run, main
from examples.sr_trilevel.targets import whole_target
from examples.sr_trilevel.teachers import BSRN

ROOT = Path(__file__).resolve().parents[2]

# Runs the command line, but sends a signal in the middle of a step: in a search when the weights
# have moved and the architecture has not.
INTERRUPTING = """
import os, signal, sys
import trinas as tn
from examples.sr_trilevel.run import main

stage, at, number = getattr(tn, sys.argv[1]), int(sys.argv[2]), signal.Signals[sys.argv[3]]
inner = stage.advance

def advance(self):
    if self.step == at:
        loss_at = self.task.loss_at

        def interrupted(*given, **named):
            self.task.loss_at = loss_at
            os.kill(os.getpid(), number)
            return loss_at(*given, **named)

        self.task.loss_at = interrupted
    return inner(self)

stage.advance = advance
sys.exit(main(sys.argv[4:]))
"""


def python(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        check=False,
        timeout=300,
        **options,
    )


@pytest.fixture(autouse=True)
def one_thread():
    """As in the processes below: sums in another order would not be the same bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, str]:
    """The folder of a smoke run without a break, and what it printed."""
    out = tmp_path_factory.mktemp("finished")
    done = python(ROOT / "examples/sr_trilevel/run.py", "smoke", "--out", out)
    assert (done.returncode, done.stderr) == (0, "")
    return out, done.stdout


def picture(path: Path, height: int, width: int, *, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(150, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def tiny(monkeypatch):
    """The smoke recipe with hardly any steps, under its own name."""
    recipe = attrs.evolve(
        smoke(),
        search=attrs.evolve(smoke().search, pretrain_steps=1, search_steps=2),
        train=attrs.evolve(smoke().train, steps=3),
    )
    monkeypatch.setitem(RECIPES, "smoke", lambda: recipe)
    return recipe


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three small pictures to train on and one to hold out."""
    for i in range(4):
        picture(tmp_path / "pictures" / f"{i}.png", 64, 128, seed=i)
    return tmp_path / "pictures"


def facts(out: Path) -> dict:
    return json.loads((out / "results.json").read_text())


# --- what a run leaves ----------------------------------------------------------------------------


def test_every_file_is_there(finished):
    out, _ = finished

    assert sorted(path.name for path in out.iterdir()) == [
        "arch.svg",
        "checkpoint.pt",
        "comparison.png",
        "config.json",
        "genotype.json",
        "results.json",
        "results.md",
        "timing.json",
    ]
    config = json.loads((out / "config.json").read_text())
    assert config["recipe"] == json.loads(smoke().to_json())
    assert (config["seed"], config["data"], config["teacher"]) == (0, None, None)
    assert "<svg" in (out / "arch.svg").read_text()


def test_the_genotype_is_one_of_the_space(finished):
    out, _ = finished
    graph = tn.lower(smoke().space(), (3, 256, 256))
    genotype = tn.Genotype.from_json(out / "genotype.json", graph)
    cost = tn.cost.count(graph, genotype)

    assert facts(out)["path"] == genotype["trunk"]
    for row in facts(out)["rows"][2:]:
        assert (row["params"], row["macs"]) == (cost.params, cost.macs)


def test_the_checkpoint_holds_tensors_and_plain_values(finished):
    out, _ = finished
    state = torch.load(out / "checkpoint.pt", weights_only=True)

    assert state["search"]["step"] == smoke().search.total_steps
    assert state["training"]["step"] == smoke().train.steps
    assert state["identity"]["seed"] == 0


def test_results_tell_of_every_stage(finished):
    out, _ = finished
    results = facts(out)
    rows = {row["name"]: row for row in results["rows"]}
    table = (out / "results.md").read_text()

    assert list(rows) == ["bicubic", "supernet", "derived", "trained"]
    assert results["held_out"] == ["astronaut"]
    assert rows["bicubic"]["psnr"] == pytest.approx(26.84, abs=0.01)
    assert rows["trained"]["psnr"] > rows["derived"]["psnr"] + 3
    assert rows["supernet"]["params"] > rows["derived"]["params"] > 0
    assert rows["supernet"]["macs"] is None
    for name, row in rows.items():
        assert f"| {name} | {row['psnr']:.2f} |" in table
        assert "MATLAB bicubic" in row["protocol"]


def test_timing_tells_steps_and_seconds_of_every_phase(finished):
    out, _ = finished
    timing = json.loads((out / "timing.json").read_text())
    recipe = smoke()

    assert timing["device"] == "cpu"
    assert timing["threads"] >= 1
    assert {phase: of["steps"] for phase, of in timing["phases"].items()} == {
        "pretrain": recipe.search.pretrain_steps,
        "search": recipe.search.search_steps,
        "train": recipe.train.steps,
    }
    assert all(of["seconds"] > 0 for of in timing["phases"].values())


def test_the_search_ends_one_hot_and_the_derived_network_is_the_supernet(finished):
    out, _ = finished
    results = facts(out)
    rows = {row["name"]: row for row in results["rows"]}

    assert results["one_hot"] == {"alpha": True, "beta": True}
    assert results["supernet_minus_derived"] <= 1e-5
    assert rows["supernet"]["psnr"] == rows["derived"]["psnr"]


def test_the_comparison_has_content(finished):
    out, _ = finished
    with Image.open(out / "comparison.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(float)
    columns = np.split(pixels[:, : pixels.shape[1] // 4 * 4], 4, axis=1)

    assert pixels.shape[0] > 400
    assert pixels.shape[1] > 1500
    assert all(column.std() > 20 for column in columns)
    assert all(np.abs(columns[0] - column).mean() > 1 for column in columns[1:])


def test_progress_tells_the_phase_time_left_psnr_and_radius(finished):
    _, printed = finished
    lines = [line for line in printed.splitlines() if re.match(r" *(pretrain|search|train) ", line)]
    phases = [line.split()[0] for line in lines]

    assert sorted(set(phases), key=phases.index) == ["pretrain", "search", "train"]
    for line in lines:
        assert re.search(r"\d+/\d+  left (\d+:)*\d\d:\d\d  PSNR [\d.]+ dB  .*loss \d", line), line
    radii = [float(radius) for radius in re.findall(r"radius ([\d.]+)", printed)]
    assert radii == sorted(radii)
    assert radii[0] < 0.2
    assert radii[-1] == 1
    assert "space: 10 decisions, 3,136 networks" in printed


def test_the_same_seed_gives_the_same_files(finished, tmp_path):
    first, _ = finished
    assert main(["smoke", "--out", str(tmp_path)]) == 0

    for name in ("genotype.json", "results.json", "results.md", "config.json"):
        assert (tmp_path / name).read_bytes() == (first / name).read_bytes(), name


def test_without_graphviz_the_drawing_is_text(tiny, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["smoke", "--data", str(folder), "--out", str(tmp_path / "out")]) == 0

    assert (tmp_path / "out" / "arch.dot").read_text().startswith("digraph")
    assert not (tmp_path / "out" / "arch.svg").exists()
    assert "arch.dot instead of arch.svg" in capsys.readouterr().out


def test_a_run_before_this_one_is_set_aside(tiny, folder, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["smoke", "--data", str(folder), "--out", str(out)]
    assert main([*command, "--seed", "1"]) == 0
    earlier = {path.name: path.read_bytes() for path in out.iterdir()}
    assert "earlier run" not in capsys.readouterr().out

    for aside in ("previous", "previous-2"):
        assert main(command) == 0
        assert f"earlier run left is in {out / aside}\n" in capsys.readouterr().out
        kept = {path.name: path.read_bytes() for path in (out / aside).iterdir()}
        assert kept == earlier
        earlier = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


# --- interruption and resuming --------------------------------------------------------------------


def tensors(value: object) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value
    return [t for v in items for t in tensors(v)] if isinstance(value, dict | list) else []


def test_interrupted_twice_and_resumed_it_ends_with_the_same_bits(finished, tmp_path):
    """Ctrl-C within a step of the search, SIGTERM within one of training, then to the end."""
    whole, _ = finished
    command = ["smoke", "--out", tmp_path]
    in_search = python("-c", INTERRUPTING, "Search", 10, "SIGINT", *command)
    after_search = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    in_training = python("-c", INTERRUPTING, "Training", 7, "SIGTERM", *command, "--resume")
    after_training = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    last = python("-m", "examples.sr_trilevel.run", *command, "--resume")

    for stopped in (in_search, in_training):
        assert stopped.returncode == 130, stopped.stderr
        assert "stopping after this step" in stopped.stderr
        assert "the same command with --resume goes on" in stopped.stderr
        assert "Traceback" not in stopped.stderr
    assert (after_search["search"]["step"], after_search["training"]) == (11, None)
    assert after_training["search"]["step"] == smoke().search.total_steps
    assert after_training["training"]["step"] == 8
    assert (last.returncode, last.stderr) == (0, "")
    assert "search" not in re.findall(r"^ *(\w+) +\d+/", last.stdout, re.MULTILINE)
    for name in ("genotype.json", "results.json", "results.md", "config.json"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes(), name
    phases = [json.loads((out / "timing.json").read_text())["phases"] for out in (whole, tmp_path)]
    steps = [{phase: of["steps"] for phase, of in found.items()} for found in phases]
    assert steps[0] == steps[1]
    states = [
        tensors(torch.load(out / "checkpoint.pt", weights_only=True)) for out in (whole, tmp_path)
    ]
    assert len(states[0]) == len(states[1]) > 100
    assert all(torch.equal(a, b) for a, b in zip(*states))


def test_ctrl_c_in_search_and_in_training_are_alike(tiny, folder, tmp_path):
    """In the process itself, so that both stages and both signals are met in little time."""
    out = tmp_path / "out"
    command = ["smoke", "--data", str(folder), "--out", str(out)]
    whole = tmp_path / "whole"
    assert main([*command[:-1], str(whole)]) == 0
    resume: list[str] = []
    for stage, number in ((tn.Search, signal.SIGTERM), (tn.Training, signal.SIGINT)):
        with pytest.MonkeyPatch.context() as patch:
            inner = stage.advance

            def advance(self, inner=inner, number=number):
                signal.raise_signal(number)
                return inner(self)

            patch.setattr(stage, "advance", advance)
            assert main([*command, *resume]) == 130
        resume = ["--resume"]

    assert main([*command, "--resume"]) == 0
    assert facts(out) == facts(whole)


def test_a_failed_step_leaves_the_last_good_checkpoint(tiny, folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    command = ["smoke", "--data", str(folder), "--out", str(out)]

    def fail(self):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(tn.Training, "advance", fail)
        with pytest.raises(MemoryError):
            main(command)
    state = torch.load(out / "checkpoint.pt", weights_only=True)

    assert (state["search"]["step"], state["training"]) == (3, None)
    assert main([*command, "--resume"]) == 0


def test_a_finished_run_resumes_to_the_same_results(tiny, folder, tmp_path):
    command = ["smoke", "--data", str(folder), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    before = facts(tmp_path / "out")

    assert main([*command, "--resume"]) == 0
    assert facts(tmp_path / "out") == before


def test_interrupted_before_the_first_step(tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "builtin_images", interrupted)

    assert main(["smoke", "--out", str(tmp_path / "out")]) == 130
    assert "interrupted: nothing was done yet" in capsys.readouterr().err


# --- with a teacher -------------------------------------------------------------------------------


@pytest.fixture
def teacher(tmp_path) -> Path:
    torch.manual_seed(5)
    torch.save(BSRN(16, 1).state_dict(), tmp_path / "teacher.pth")
    return tmp_path / "teacher.pth"


@pytest.fixture
def computed(monkeypatch) -> list[tuple[int, ...]]:
    """The shapes of the pictures that a teacher has enlarged since."""
    shapes: list[tuple[int, ...]] = []
    inner = targets.whole_target

    def counted(teacher, lr):
        shapes.append(tuple(lr.shape))
        return inner(teacher, lr)

    monkeypatch.setattr(targets, "whole_target", counted)
    return shapes


def final_bits(out: Path) -> list[torch.Tensor]:
    return tensors(torch.load(out / "checkpoint.pt", weights_only=True))


def same_bits(a: Path, b: Path) -> bool:
    one, other = final_bits(a), final_bits(b)
    return len(one) == len(other) > 100 and all(torch.equal(x, y) for x, y in zip(one, other))


def test_targets_are_computed_once_and_not_again_by_another_run(
    tiny, folder, teacher, tmp_path, computed
):
    """Of 3 pictures: the halves, for the search, and the wholes, for training."""
    command = ["smoke", "--data", str(folder), "--teacher", str(teacher), "--out"]
    cache = tmp_path / "a" / "targets"
    assert main([*command, str(tmp_path / "a")]) == 0
    # Not all of them may have been needed: that depends on how far ahead batches were.
    assert 1 <= computed.count((3, 16, 16)) <= 6
    assert 1 <= computed.count((3, 16, 32)) <= 3
    assert len(list(cache.iterdir())) == len(computed) <= 9
    for _ in range(2):
        assert main([*command, str(tmp_path / "b"), "--teacher-cache", str(cache)]) == 0
        assert len(list(cache.iterdir())) == len(computed) <= 9
    assert not (tmp_path / "b" / "targets").exists()
    assert same_bits(tmp_path / "a", tmp_path / "b")

    before = len(computed)
    assert main([*command, str(tmp_path / "c")]) == 0
    assert len(computed) > before
    assert same_bits(tmp_path / "a", tmp_path / "c")


@pytest.mark.parametrize("keep", [True, False], ids=["cache kept", "cache lost"])
def test_a_run_with_a_teacher_resumes_to_the_same_bits(tiny, folder, teacher, tmp_path, keep):
    command = ["smoke", "--data", str(folder), "--teacher", str(teacher), "--out"]
    assert main([*command, str(tmp_path / "whole")]) == 0
    command.append(str(tmp_path / "out"))
    resume: list[str] = []
    for stage in (tn.Search, tn.Training):
        with pytest.MonkeyPatch.context() as patch:
            inner = stage.advance

            def advance(self, inner=inner):
                signal.raise_signal(signal.SIGINT)
                return inner(self)

            patch.setattr(stage, "advance", advance)
            assert main([*command, *resume]) == 130
        resume = ["--resume"]
        if not keep:
            shutil.rmtree(tmp_path / "out" / "targets")

    assert main([*command, "--resume"]) == 0
    assert facts(tmp_path / "out") == facts(tmp_path / "whole")
    assert same_bits(tmp_path / "out", tmp_path / "whole")


def test_damaged_targets_are_computed_anew(tiny, folder, teacher, tmp_path, capsys):
    cache = tmp_path / "cache"
    command = ["smoke", "--data", str(folder), "--teacher", str(teacher)]
    command += ["--teacher-cache", str(cache), "--out"]
    assert main([*command, str(tmp_path / "a")]) == 0
    assert f"targets: BSRN, kept in {cache}" in capsys.readouterr().out
    for path in cache.iterdir():
        path.write_bytes(path.read_bytes()[:-5])
    assert main([*command, str(tmp_path / "b")]) == 0

    assert ": damaged; this target is computed anew\n" in capsys.readouterr().out
    assert same_bits(tmp_path / "a", tmp_path / "b")
    assert json.loads((tmp_path / "b" / "config.json").read_text())["teacher_cache"] == str(cache)


def test_what_fails_in_the_background_ends_the_run_with_its_error(
    tiny, folder, teacher, tmp_path, capsys, monkeypatch
):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(targets, "_write", full)
    command = ("smoke", "--data", folder, "--teacher", teacher, "--out", tmp_path / "out")

    assert "No space left on device" in refusal(capsys, *command)


def test_no_thread_is_left_after_a_run(tiny, folder, tmp_path, monkeypatch):
    command = ["smoke", "--data", str(folder), "--out", str(tmp_path / "out")]
    names: list[str] = []
    before = threading.enumerate()
    inner = tn.Training.advance

    def advance(self):
        report = inner(self)
        names.extend(thread.name for thread in threading.enumerate())
        if len(names) > 20:
            raise MemoryError
        return report

    def left() -> list[str]:
        threads = [t for t in threading.enumerate() if t not in before]
        return [t.name for t in threads if "trinas-prefetch" in t.name]

    with monkeypatch.context() as patch:
        patch.setattr(tn.Training, "advance", advance)
        assert main(command) == 0
        assert any("trinas-prefetch" in name for name in names)
        assert left() == []
        names.extend(["a failure is due"] * 20)
        with pytest.raises(MemoryError):
            main(command)
        assert left() == []


# --- what it refuses ------------------------------------------------------------------------------


def refusal(capsys, *arguments: object) -> str:
    """The one line a command ends with."""
    capsys.readouterr()
    assert main(list(map(str, arguments))) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert text.count("\n") == 1, text
    return text


@pytest.fixture
def checkpoint(tiny, folder, tmp_path) -> list[str]:
    """The command of a run that has been done, but for --resume."""
    command = ["smoke", "--data", str(folder), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    return command


def test_resume_without_a_checkpoint(tmp_path, capsys):
    text = refusal(capsys, "smoke", "--out", tmp_path / "none", "--resume")

    assert "--resume needs a checkpoint" in text
    assert str(tmp_path / "none" / "checkpoint.pt") in text
    assert "Start without --resume" in text
    assert not (tmp_path / "none").exists()


def test_resume_with_other_settings(checkpoint, tmp_path, folder, monkeypatch, capsys):
    """The message names what differs, and both values."""
    recipe = RECIPES["smoke"]()
    assert "own seed; got 0 in the checkpoint, 5 now" in refusal(
        capsys, *checkpoint, "--seed", 5, "--resume"
    )
    other = attrs.evolve(recipe, batch=7)
    with monkeypatch.context() as patch:
        patch.setitem(RECIPES, "smoke", lambda: other)
        text = refusal(capsys, *checkpoint, "--resume")
    assert 'own recipe; got "batch": 2, in the checkpoint, "batch": 7, now' in text
    assert "Use the command line the run was started with" in text
    torch.save(BSRN(16, 1).state_dict(), tmp_path / "teacher.pth")
    text = refusal(capsys, *checkpoint, "--teacher", tmp_path / "teacher.pth", "--resume")
    assert "own teacher; got None in the checkpoint" in text
    picture(folder / "4.png", 64, 128)
    assert "own pictures; got training on 3 images" in refusal(capsys, *checkpoint, "--resume")


def test_resume_from_the_checkpoint_of_another_recipe(checkpoint, capsys):
    text = refusal(capsys, "demo", *checkpoint[1:], "--resume")

    assert 'got "name": "smoke", in the checkpoint, "name": "demo", now' in text


def test_resume_from_the_checkpoint_of_a_version_that_took_no_times(checkpoint, tmp_path):
    path = tmp_path / "out" / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    del state["timing"]
    torch.save(state, path)

    assert main([*map(str, checkpoint), "--resume"]) == 0
    timing = json.loads((tmp_path / "out" / "timing.json").read_text())
    assert timing["phases"] == {}, "nothing was left to do"


def test_resume_from_the_checkpoint_of_another_space(checkpoint, tmp_path, capsys):
    """As after the definition of the space has changed: the recipe is the same."""
    path = tmp_path / "out" / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    state["search"]["model"]["_extra_state"]["space"] = "0" * 64
    torch.save(state, path)

    assert "the supernet of its own space; got space 000000000000" in refusal(
        capsys, *checkpoint, "--resume"
    )


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-100],
        lambda content: b"",
        lambda content: b"not a checkpoint\n" * 20,
        lambda content: bytes(len(content)),
        lambda content: content[:200] + bytes(400) + content[600:],
    ],
    ids=["half", "end missing", "empty", "text", "zeros", "hole"],
)
def test_a_damaged_checkpoint_is_refused(checkpoint, tmp_path, capsys, damage):
    path = tmp_path / "out" / "checkpoint.pt"
    path.write_bytes(damage(path.read_bytes()))
    text = refusal(capsys, *checkpoint, "--resume")

    assert "a checkpoint cannot be read" in text
    assert str(path) in text
    assert "without --resume" in text


def test_a_file_that_is_no_checkpoint_is_refused(checkpoint, tmp_path, capsys):
    path = tmp_path / "out" / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    torch.save(BSRN(16, 1).state_dict(), path)
    assert "a checkpoint holds identity, search, training; got fea_conv.pw.weight" in refusal(
        capsys, *checkpoint, "--resume"
    )
    torch.save(torch.zeros(3), path)
    assert "got Tensor" in refusal(capsys, *checkpoint, "--resume")
    del state["search"]["rng"]
    torch.save(state, path)
    text = refusal(capsys, *checkpoint, "--resume")
    assert "rng" in text
    assert str(path) in text


def test_folders_that_cannot_be_used(tmp_path, capsys):
    out = ("--out", tmp_path / "out")
    empty = tmp_path / "empty"
    empty.mkdir()
    text = refusal(capsys, "smoke", "--data", tmp_path / "absent", *out)
    assert "got no such folder" in text
    assert str(tmp_path / "absent") in text
    assert f"holds no pictures; got none of .bmp, .jpeg, .jpg, .png, .ppm, .tif, .tiff, .webp; " \
        f"at {empty}" in refusal(capsys, "smoke", "--data", empty, *out)  # fmt: skip
    picture(empty / "one.png", 128, 128)
    assert "one picture cannot be both trained on and held out; got one.png" in refusal(
        capsys, "smoke", "--data", empty, *out
    )
    assert not (tmp_path / "out").exists()


def test_pictures_that_cannot_be_used(folder, tmp_path, capsys):
    command = ("smoke", "--data", folder, "--out", tmp_path / "out")
    picture(folder / "small.png", 63, 200)
    text = refusal(capsys, *command)
    assert f"smaller than a patch; got 200 x 63 pixels; at {folder / 'small.png'}" in text
    assert "At least 64 x 64 are required" in text
    picture(folder / "small.png", 64, 127)
    picture(folder / "zebra.png", 64, 128)
    text = refusal(capsys, *command)
    assert "must hold a patch in each half; got 127 x 64 pixels; at small.png" in text
    assert "Its longer side needs 128 pixels" in text
    (folder / "small.png").write_bytes((folder / "0.png").read_bytes()[:5000])
    text = refusal(capsys, *command)
    assert "a picture cannot be read; got OSError: image file is truncated" in text
    assert f"at {folder / 'small.png'}. Replace or remove the file." in text


def test_bad_pictures_can_be_left_out(tiny, folder, tmp_path, capsys):
    picture(folder / "small.png", 20, 20)
    (folder / "broken.jpg").write_text("x")

    assert main(["smoke", "--data", str(folder), "--out", str(tmp_path / "o"), "--skip-bad"]) == 0
    printed = capsys.readouterr().out
    assert "2 files skipped" in printed
    assert "skipped broken.jpg: a picture cannot be read" in printed


def test_held_out_pictures_too_small_to_score_are_refused_at_once(folder, tmp_path, capsys):
    div2k = tmp_path / "DIV2K"
    div2k.mkdir()
    folder.rename(div2k / "DIV2K_train_HR")
    picture(div2k / "DIV2K_valid_HR" / "0801.png", 18, 40)

    assert "needs at least 11 x 11 pixels inside a border of 4; got 40 x 16; at 0801.png" in (
        refusal(capsys, "smoke", "--data", div2k, "--out", tmp_path / "out")
    )


def test_teachers_that_cannot_be_used(tmp_path, capsys):
    path, out = tmp_path / "teacher.pth", ("--out", tmp_path / "out")
    assert f"at {path}" in refusal(capsys, "smoke", "--teacher", path, *out)
    path.write_text("x")
    assert "one that torch.save wrote" in refusal(capsys, "smoke", "--teacher", path, *out)
    torch.save({"a": torch.zeros(1)}, path)
    text = refusal(capsys, "smoke", "--teacher", path, *out)
    assert "belong to no network known here; got 1 tensors named a" in text
    assert "Known are BSRN, RFDN, RLFN and RRDBNet." in text
    torch.save(BSRN(16, 1, scale=2).state_dict(), path)
    assert "a teacher for this recipe enlarges 4 times; got BSRN for x2" in refusal(
        capsys, "smoke", "--teacher", path, *out
    )
    cache = ("--teacher-cache", path)
    text = refusal(capsys, "smoke", *cache, *out)
    assert f"--teacher-cache keeps what a teacher makes; got no --teacher; at {path}" in text
    torch.save(BSRN(16, 1).state_dict(), path)
    text = refusal(capsys, "smoke", "--teacher", path, *cache, *out)
    assert f"targets are kept in a folder; got a file; at {path}" in text
    assert not (tmp_path / "out").exists()


def test_devices_and_folders_that_cannot_be_used(tmp_path, capsys):
    text = refusal(capsys, "smoke", "--out", tmp_path / "out", "--device", "toaster")
    assert "a device is one that torch can use here; got toaster" in text
    (tmp_path / "file").write_text("")
    assert "file" in refusal(capsys, "smoke", "--out", tmp_path / "file")


def test_usage(capsys):
    for wrong in ([], ["smoke", "--seed", "x"]):
        with pytest.raises(SystemExit, match="2"):
            main(wrong)
    capsys.readouterr()
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    for word in ("--data", "--skip-bad", "--teacher", "--teacher-cache", "--out", "--resume"):
        assert f"{word} " in text
    for word in (*RECIPES, *VARIANTS, "--seed", "--device"):
        assert word in text
    assert "smoke        Every stage once" in text
    assert "comparison.png" in text


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        (
            "huge",
            "no recipe of this size; got huge. There are smoke, tiny, demo, cores, hour, paper.",
        ),
        ("smoke/huge", "no recipe of this variant; got smoke/huge. There are lambda-0, "),
        ("smoke/", "no recipe of this variant; got smoke/. "),
    ],
)
def test_recipes_that_there_are_none_of(name, rule, tmp_path, capsys):
    assert rule in refusal(capsys, name, "--out", tmp_path / "out")


# --- data -----------------------------------------------------------------------------------------


def halved(path: Path, first: int, second: int, height: int, width: int) -> None:
    """A picture of one gray to the left and another to the right."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((height, width, 3), first, dtype=np.uint8)
    pixels[:, width // 2 :] = second
    Image.fromarray(pixels).save(path)


def grays(batches, steps: int = 40) -> set[int]:
    """All values in the targets of some batches."""
    return {
        round(value * 255) for step in range(steps) for value in batches(step)[1].unique().tolist()
    }


def test_no_part_sees_what_another_is_for(tiny, tmp_path):
    """Weights and architecture share no pixel, and nobody sees the pictures held out."""
    for i in range(3):
        halved(tmp_path / "p" / f"{i}.png", 2 * i, 2 * i + 1, 64, 128)
    picture(tmp_path / "p" / "z.png", 80, 80)  # held out; all values are above 100
    run = Run(tiny, out=tmp_path / "out", data=str(tmp_path / "p"))
    run.go()
    weights, architecture = grays(run.search.train), grays(run.search.valid)

    assert list(run.split.held_out) == ["z.png"]
    assert weights == {0, 3, 4}
    assert architecture == {1, 2, 5}
    assert run.training is not None
    assert grays(run.training.train) == {0, 1, 2, 3, 4, 5}


def test_many_pictures_are_dealt_out_whole_and_may_be_as_small_as_a_patch(tiny, tmp_path):
    for i in range(17):
        halved(tmp_path / "p" / f"{i:02}.png", i, i, 64, 64)
    picture(tmp_path / "p" / "z.png", 64, 64)
    run = Run(tiny, out=tmp_path / "out", data=str(tmp_path / "p"))

    assert grays(run.search.train) == set(range(0, 17, 2))
    assert grays(run.search.valid) == set(range(1, 17, 2))


def lies_in(patch: torch.Tensor, picture: torch.Tensor) -> bool:
    """Whether a patch was cut from a picture, mirrored or not."""
    places = picture.unfold(1, patch.shape[1], 4).unfold(2, patch.shape[2], 4)
    return any(
        bool((places == part[:, None, None]).all(-1).all(-1).all(0).any())
        for part in (patch, patch.flip(-1))
    )


def test_div2k_layout_and_a_teacher(tiny, folder, tmp_path):
    """Held-out pictures are those of DIV2K_valid_HR; the target is what the teacher makes of LR."""
    div2k, teacher = tmp_path / "DIV2K", tmp_path / "teacher.pth"
    div2k.mkdir()
    folder.rename(div2k / "DIV2K_train_HR")
    picture(div2k / "DIV2K_train_LR_bicubic" / "X4" / "0x4.png", 16, 32)
    picture(div2k / "DIV2K_valid_HR" / "0801.png", 40, 30)
    torch.save(BSRN(16, 1).state_dict(), teacher)
    run = Run(tiny, out=tmp_path / "out", data=str(div2k), teacher=str(teacher))
    run.go()
    assert run.targets is not None
    assert run.training is not None
    wholes = [whole_target(run.targets.teacher, p.lr) for p in make_pairs(run.split.train)]

    for patch in to_uint8(run.training.train(0)[1]):
        assert any(lies_in(patch, whole) for whole in wholes)
    assert facts(tmp_path / "out")["held_out"] == ["0801.png"]
    assert facts(tmp_path / "out")["teacher"] == "BSRN"
    assert "target: BSRN" in (tmp_path / "out" / "results.md").read_text()
    assert len(run.split.train) == 4
