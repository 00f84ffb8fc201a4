"""A page of images with the paper's captions, to look at before anything is trained on them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

TILE = 192  # pixels a tile is enlarged to: five features can be told apart and the caption fits below
CAPTION = 34
GAP = 14


def contact_sheet(
    path: Path, images: Sequence[np.ndarray | None], captions: Sequence[str], columns: int
) -> None:
    """Write a PNG of captioned images (uint8, H x W x 3), row by row; None is drawn as an empty tile."""
    width, height = TILE + GAP, TILE + CAPTION + GAP
    rows = -(-len(images) // columns)
    page = Image.new("RGB", (columns * width + GAP, rows * height + GAP), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(10)
    for i, (image, text) in enumerate(zip(images, captions, strict=True)):
        x, y = GAP + i % columns * width, GAP + i // columns * height
        if image is None:
            draw.rectangle((x, y, x + TILE - 1, y + TILE - 1), fill="lightgray")
        else:
            page.paste(Image.fromarray(image).resize((TILE, TILE), Image.Resampling.NEAREST), (x, y))
        draw.multiline_text(
            (x, y + TILE + 3), text.replace(" on ", "\non "), fill="black", font=font, spacing=2
        )
    page.save(path)
