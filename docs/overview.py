"""Makes docs/assets/overview.png, the picture of the README, from a finished demonstration.

    python -m docs.overview runs/demo

It repeats the first half of the search to draw the supernet as it stood there.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import trinas as tn
from examples.sr_trilevel.picture import GAP as BETWEEN
from examples.sr_trilevel.picture import MARGIN
from examples.sr_trilevel.recipes import demo
from examples.sr_trilevel.run import Run

HEIGHT, GAP, CAPTION = 900, 36, 44


def main(folder: Path) -> None:
    """Compose the picture for the run in `folder`."""
    with tempfile.TemporaryDirectory() as scratch:
        run = Run(demo(), out=Path(scratch))
        middle = demo().search.pretrain_steps + demo().search.search_steps * 6 // 10
        for report in run.search:
            if report.step == middle:
                break
        genotype = tn.Genotype.from_json(folder / "genotype.json", run.graph)
        pictures = {
            "supernet, on its way": tn.draw(run.strategy.searched).render(
                Path(scratch) / "net.png"
            ),
            "derived": tn.draw(genotype).render(Path(scratch) / "arch.png"),
        }
        columns = [(text, _fit(Image.open(path))) for text, path in pictures.items()]
        columns.append(
            ("x4 enlargement of a photograph it never saw", _detail(folder / "comparison.png"))
        )
        _row(columns).save("docs/assets/overview.png", optimize=True)


def _fit(picture: Image.Image) -> Image.Image:
    """The picture at the height of the row, its proportions kept."""
    picture = picture.convert("RGB")
    return picture.resize((round(picture.width * HEIGHT / picture.height), HEIGHT), Image.LANCZOS)


def _detail(path: Path) -> Image.Image:
    """Bicubic above, the result below: the middle columns of the comparison."""
    whole = Image.open(path).convert("RGB")
    # Four columns with gaps between them, inside a margin: the two in the middle.
    column = (whole.width - 2 * MARGIN - 3 * BETWEEN) // 4
    left = MARGIN + column + BETWEEN
    return _fit(whole.crop((left, 0, left + 2 * column + BETWEEN, whole.height)))


def _row(columns: list[tuple[str, Image.Image]]) -> Image.Image:
    """The pictures side by side under their captions."""
    width = sum(picture.width for _, picture in columns) + GAP * (len(columns) + 1)
    canvas = Image.new("RGB", (width, HEIGHT + CAPTION + 2 * GAP), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(28)
    left = GAP
    for text, picture in columns:
        draw.text((left, GAP // 2), text, fill="#333333", font=font)
        canvas.paste(picture, (left, CAPTION + GAP))
        left += picture.width + GAP
    return canvas


if __name__ == "__main__":
    main(Path(sys.argv[1]))
