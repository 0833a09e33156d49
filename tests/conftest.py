"""Settings of all tests: one thread, fixed seeds, golden files."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

GOLDEN = Path(__file__).parent / "golden"

# Tests are small: threads cost more than they bring, and sums come out the same everywhere.
torch.set_num_threads(1)

settings.register_profile(
    "trinas",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("trinas")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write the files under tests/golden anew instead of comparing with them",
    )


@pytest.fixture(autouse=True)
def _seeds() -> None:
    random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``golden(file, text)`` compares `text` with a file under ``tests/golden``.

    After a change that is meant, ``pytest --update-golden`` writes the files anew; the
    difference then shows in the review.
    """

    def check(file: str, text: str) -> None:
        path = GOLDEN / file
        if request.config.getoption("--update-golden"):
            path.write_text(text, encoding="utf-8")
        hint = "if this is meant: pytest --update-golden"
        assert path.exists(), hint
        assert path.read_text(encoding="utf-8") == text, hint

    return check
