"""What holds for the project as a whole: layers, light imports, one version, clean files."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

import trinas

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = ROOT / "pyproject.toml"

# Packages that only some users have: `import trinas` must do without them.
OPTIONAL = ("graphviz", "torchinfo", "skimage", "sklearn", "PIL")

# Spelled with [brackets], so that this file passes its own check.
FORBIDDEN = {
    "a path of one machine": r"(?<![\w.~-])/(?:work|root|home|Users|mnt|opt)/\w",
    "a package registry": r"index[-]url|find[-]links",
    "unfinished work": r"\b(?:T[O]DO|F[I]XME|X[X]X)\b",
    "a merge conflict": r"^(?:<{7}|>{7}) ",
}


def in_a_new_process(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_layers_are_kept(capsys):
    """Every import-linter contract of pyproject.toml holds."""
    status = lint_imports(config_filename=str(PYPROJECT), no_cache=True)

    assert status == 0, capsys.readouterr().out


def test_a_broken_layer_is_found(tmp_path, capsys):
    """The check above can fail: the layers upside down do not hold."""
    config = tmp_path / "pyproject.toml"
    layers = 'layers = ["_core", "space"]\ncontainers = ["trinas"]\n'
    config.write_text(
        '[tool.importlinter]\nroot_package = "trinas"\n\n[[tool.importlinter.contracts]]\n'
        f'name = "upside down"\ntype = "layers"\n{layers}'
    )

    assert lint_imports(config_filename=str(config), no_cache=True) != 0
    assert "upside down BROKEN" in capsys.readouterr().out


LOADED = "import sys; print([name for name in {names} if name in sys.modules])"


def test_import_is_light():
    """`import trinas` loads no optional package."""
    assert in_a_new_process(f"import trinas; {LOADED.format(names=OPTIONAL)}") == "[]"


def test_a_heavy_import_is_found():
    """The check above can fail."""
    found = in_a_new_process(f"import trinas, graphviz; {LOADED.format(names=OPTIONAL)}")

    assert found == "['graphviz']"


def test_the_version_is_in_one_place():
    """The build, the installed package and the change notes agree with version.py."""
    project = PYPROJECT.read_text()
    assigned = [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "trinas").rglob("*.py"))
        if re.search(r"^__version__ *=", path.read_text(), re.MULTILINE)
    ]

    assert assigned == ["trinas/_core/version.py"]
    assert 'dynamic = ["version"]' in project
    assert f'"{trinas.__version__}"' not in project
    assert metadata.version("trinas") == trinas.__version__, "make install"
    assert f"## [{trinas.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize(
    ("file", "headings"),
    [
        ("README.md", ["Install", "Licen[cs]e"]),
        ("CHANGELOG.md", [r"\[Unreleased\]", "Added"]),
        ("CONTRIBUTING.md", ["Set up", "Before"]),
    ],
)
def test_a_file_has_the_sections_people_look_for(file, headings):
    text = (ROOT / file).read_text()

    for heading in headings:
        assert re.search(rf"^#+ .*{heading}", text, re.MULTILINE), f"{file}: no section {heading}"


def test_the_licence_is_whole():
    """The Apache licence, from its title to the end of its appendix."""
    text = (ROOT / "LICENSE").read_text()

    assert re.match(r"\s+Apache License\s+Version 2.0, January 2004", text)
    assert "END OF TERMS AND CONDITIONS" in text
    assert text.rstrip().endswith("limitations under the License.")


def test_links_to_files_lead_somewhere():
    """Links from the pages that hosts show (the documentation build checks its own)."""
    broken = []
    for page in ROOT.glob("*.md"):
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
            if "://" not in target and not target.startswith("mailto:"):
                broken += [] if (ROOT / target).exists() else [f"{page.name}: {target}"]

    assert broken == []


def project_files() -> list[Path]:
    """The files that git tracks; without git, those that a release holds."""
    command = ["git", "ls-files", "-z"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
        names = [name for name in listed.stdout.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        names = []
    if names:
        return [path for name in names if (path := ROOT / name).is_file()]
    folders = [ROOT / part for part in ("trinas", "examples", "tests", "docs")]
    found = [*ROOT.glob("*"), *(path for folder in folders for path in folder.rglob("*"))]
    return [path for path in found if path.is_file() and "__pycache__" not in path.parts]


def offences(text: str) -> list[str]:
    return [
        f"{text.count(chr(10), 0, match.start()) + 1}: {what}: {match[0]}"
        for what, pattern in FORBIDDEN.items()
        for match in re.finditer(pattern, text, re.MULTILINE)
    ]


def test_files_are_clean():
    """No file knows one machine, a registry, or is unfinished."""
    files = project_files()
    found = []
    for path in files:
        content = path.read_bytes()
        if b"\0" not in content:
            name = path.relative_to(ROOT).as_posix()
            found += [f"{name}:{line}" for line in offences(content.decode(errors="replace"))]

    assert len(files) > 20
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "see {}work/main".format("/"),
        "open('{}home/me/x')".format("/"),
        "pip --index{}url x".format("-"),
        "# TO{}: later".format("DO"),
        "a\n{} b".format("<" * 7),
    ],
)
def test_an_unclean_file_is_found(text):
    """The check above can fail."""
    assert len(offences(text)) == 1


@pytest.mark.parametrize("text", ["a/work/b", "https://x.org/home/y", "~/opt/x", "and/or"])
def test_a_clean_file_passes(text):
    assert offences(text) == []
