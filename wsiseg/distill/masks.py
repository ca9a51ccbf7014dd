"""Pseudo-masks of `wsiseg masks` and their patches as training data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from wsiseg.annotations import Palette
from wsiseg.config import digest_of
from wsiseg.distill.labels import LabelledWindows, Read, Survey, count_window
from wsiseg.errors import DataError
from wsiseg.evaluate.patches import read_mask
from wsiseg.table import refuse
from wsiseg.train.patches import Patches, load_images

__all__ = ["load_masks"]


def load_masks(
    masks: str | Path, patches: str | Path, *, mpp: float | None = None
) -> LabelledWindows:
    """Load the masks of patches, and check every one of them.

    Edited masks are used as they are.

    Parameters
    ----------
    masks
        A folder from `wsiseg masks`, with ``confidence/`` if that was requested.
    patches
        The patches it was given: a table, a BCSS-WSSS folder, or any folder of images.
    mpp
        µm/px of the patches; None for the first stage's, from the masks folder.

    Raises
    ------
    DataError
        If anything is wrong; lists every problem.
    """
    masks = Path(masks)
    about = _read_about(masks)
    numbers: dict[str, int] = about["numbers"]
    names = tuple(name for name in numbers if name != "background")
    palette = Palette(names, tuple(tuple(about["colors"][name]) for name in names))
    images = load_images(patches)  # whatever their labels, which the masks have made use of
    confident = (masks / "confidence").is_dir()
    check = partial(_check_pair, masks, confident, images, len(names))
    with ThreadPoolExecutor() as pool:
        checked = list(pool.map(check, range(len(images))))
    refuse(masks, [problem for problem in checked if isinstance(problem, str)], "masks")
    pairs = [pair for pair in checked if not isinstance(pair, str)]
    counts = np.stack([counts for counts, _ in pairs])
    made = about["checkpoint"]
    return LabelledWindows(
        palette=palette, first_stage=_describe(about), has_confidence=confident, calibrated=False,
        side=images.side, tile=images.side, mpp=mpp or made.get("mpp"),
        identity=digest_of(images.identity, [digest for _, digest in pairs], numbers),
        names=tuple(path.name for path in images.paths), cases=tuple(images.cases),
        survey=Survey(counts.sum(0), counts[:, :-1].sum(2) > 0),
        reader=partial(_read, masks, confident, images),
    )  # fmt: skip


def _read_about(masks: Path) -> dict[str, Any]:
    path = masks / "masks.json"
    try:
        about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        numbers, colors = about["numbers"], about["colors"]
        names = [*colors, "background"]
        if list(numbers) != names or list(numbers.values()) != list(range(len(names))):
            raise ValueError(f"numbers {numbers} are not those of {names}")
    except FileNotFoundError as error:
        raise DataError(
            f"{masks}: contains no masks.json; give a folder that `wsiseg masks` wrote"
        ) from error
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path}: does not say what the masks mean ({error!r}); run `wsiseg masks` again "
            f"(existing masks are kept)"
        ) from error
    return about


def _describe(about: dict[str, Any]) -> dict[str, str]:
    settings = about["settings"]
    crf = "with CRF" if settings["refine"] else "without CRF"
    return {
        "labels": f"masks, {about['gate_means']}, TTA {settings['tta']}, {crf}",
        "model": about["checkpoint"]["encoder"],
        "sha256": about["checkpoint"]["sha256"],
    }


def _check_pair(
    masks: Path, confident: bool, patches: Patches, classes: int, number: int
) -> tuple[NDArray[np.int64], str] | str:
    """Count a mask and its confidence, and hash them; or return what is wrong with them."""
    path = patches.paths[number]
    try:
        labels, confidence = _read_pair(masks, confident, path)
    except FileNotFoundError as error:
        return f"{path.name}: has no {error.filename}; run `wsiseg masks` again"
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        return f"{path.name}: its mask cannot be read ({error})"
    for kind, values in (("mask", labels), ("confidence", confidence)):
        if values.shape != (patches.side, patches.side):
            height, width = values.shape[:2]
            return (
                f"{path.name}: its {kind} is {width} x {height} px, the image {patches.side} x "
                f"{patches.side}"
            )
    if labels.max(initial=0) > classes:
        return (
            f"{path.name}: its mask contains {int(labels.max())}; {classes} classes are 0 to "
            f"{classes - 1}, background is {classes}"
        )
    digest = hashlib.sha256(labels.tobytes() + confidence.tobytes()).hexdigest()
    return count_window(labels, confidence, classes), digest


def _read_pair(
    masks: Path, confident: bool, image: Path
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    name = f"{image.stem}.png"
    labels = read_mask(masks / "mask" / name)
    if not confident:
        return labels.astype(np.uint8), np.full(labels.shape, 255, np.uint8)
    with Image.open(masks / "confidence" / name) as grey:
        return labels.astype(np.uint8), np.asarray(grey.convert("L"))


def _read(masks: Path, confident: bool, patches: Patches, indices: Sequence[int]) -> Read:
    pairs = [_read_pair(masks, confident, patches.paths[index]) for index in indices]
    labels, confidence = (np.stack(part) for part in zip(*pairs, strict=True))
    return Read(patches.read(indices), labels, confidence)
