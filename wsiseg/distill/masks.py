"""Pseudo-masks of `wsiseg masks` and their patches as training data."""

from __future__ import annotations

import hashlib
import json
import zlib
from base64 import b64decode
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
from wsiseg.evaluate.mask_colors import Color, list_colors
from wsiseg.evaluate.patches import to_numbers
from wsiseg.stamps import read_stamp
from wsiseg.table import refuse
from wsiseg.train.patches import Patches, load_images

__all__ = ["load_masks"]

_WHITE = (255, 255, 255)  # of background, as `wsiseg masks` writes it
_CONFIDENCE = (
    "run `wsiseg masks` with --confidence again, or delete confidence/, to count all pixels alike"
)


def load_masks(
    masks: str | Path, patches: str | Path, *, mpp: float | None = None
) -> LabelledWindows:
    """Load the masks of patches, and check every one of them.

    Edited masks are used as they are: what a person changed counts as certain, if the confidence
    says what it was, and the rest has its confidence. A picture with a palette is read by its
    colours, as an editor may have put them in another order.

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
    made = about["checkpoint"]
    confident = any((masks / "confidence").glob("*.png"))
    folder = _Masks(masks, confident, (*palette.colors, _WHITE), made["sha256"])
    check = partial(_check_pair, folder, images)
    with ThreadPoolExecutor() as pool:
        checked = list(pool.map(check, range(len(images))))
    refuse(masks, [problem for problem in checked if isinstance(problem, str)], "masks")
    pairs = [pair for pair in checked if not isinstance(pair, str)]
    counts = np.stack([counts for counts, _ in pairs])
    return LabelledWindows(
        palette=palette, first_stage=_describe(about), has_confidence=confident, calibrated=False,
        side=images.side, tile=images.side, mpp=mpp or made.get("mpp"),
        identity=digest_of(images.identity, [digest for _, digest in pairs], numbers),
        names=tuple(path.name for path in images.paths), cases=tuple(images.cases),
        survey=Survey(counts.sum(0), counts[:, :-1].sum(2) > 0),
        reader=partial(_read, folder, images),
    )  # fmt: skip


@dataclass(frozen=True)
class _Masks:
    """A folder of masks, and what its ``masks.json`` says."""

    folder: Path
    confident: bool
    """Whether there are confidences."""
    colors: tuple[Color, ...]
    """By number; that of background is the last."""
    model: str
    """sha256 of the checkpoint that made them."""


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
    masks: _Masks, patches: Patches, number: int
) -> tuple[NDArray[np.int64], str] | str:
    """Count a mask and its confidence, and hash them; or return what is wrong with them."""
    path, classes = patches.paths[number], len(masks.colors) - 1
    try:
        labels, confidence = _read_pair(masks, path)
    except FileNotFoundError as error:
        return f"{path.name}: has no {error.filename}; {_advise(Path(error.filename))}"
    except DataError as error:
        return f"{path.name}: {error}"
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


def _advise(path: Path) -> str:
    if path.parent.name == "confidence":
        return _CONFIDENCE
    return "run `wsiseg masks` again"


def _read_pair(masks: _Masks, image: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the labels ``(H, W)`` of an image and their confidence, 255 being 1."""
    name = f"{image.stem}.png"
    with Image.open(masks.folder / "mask" / name) as mask:
        labels, stamp = to_numbers(mask).astype(np.uint8), read_stamp(mask)
        if mask.mode == "P":
            labels = _match_colors(labels, list_colors(mask), masks.colors)
    if not masks.confident:
        return labels, np.full(labels.shape, 255, np.uint8)
    with Image.open(masks.folder / "confidence" / name) as grey:
        confidence, facts = np.asarray(grey.convert("L")), read_stamp(grey)
    _check_origin(stamp, facts, masks.model)
    return labels, _trust_edits(confidence, labels, facts)


def _match_colors(
    labels: NDArray[np.uint8], shown: Mapping[int, Color], colors: Sequence[Color]
) -> NDArray[np.uint8]:
    """Number the pixels by the colours that they have in the picture's own palette."""
    table = np.arange(256, dtype=np.uint8)
    for number in np.unique(labels).tolist():
        color = shown.get(number)
        if color is not None and color == dict(enumerate(colors)).get(number):
            continue
        same = [k for k, of_class in enumerate(colors) if of_class == color]
        if len(same) != 1:
            raise DataError(
                f"its mask shows {number} in the colour {color}, which in masks.json is that of "
                f"{'several classes' if same else 'no class'}; draw in the colours of masks.json "
                f"(white is background), or save the numbers as grey"
            )
        table[number] = same[0]
    return table[labels]


def _check_origin(stamp: Mapping[str, Any], facts: Mapping[str, Any], model: str) -> None:
    """Check that a mask and a confidence with these stamps were made together.

    An editor may have dropped the mask's stamp: then the confidence has to be of the model in
    ``masks.json``. Without any stamp, they were made by something else, and are taken as they are.
    """
    if stamp.get("digest") == facts.get("digest") or (not stamp and facts.get("model") == model):
        return
    raise DataError(f"its confidence is of another mask than the one that is there; {_CONFIDENCE}")


def _trust_edits(
    confidence: NDArray[np.uint8], labels: NDArray[np.uint8], facts: Mapping[str, Any]
) -> NDArray[np.uint8]:
    """Return the confidence, 255 where a person has changed the label that it is of."""
    if "labels" not in facts or confidence.shape != labels.shape:
        return confidence
    given = np.frombuffer(zlib.decompress(b64decode(facts["labels"])), np.uint8)
    return np.where(labels == given.reshape(labels.shape), confidence, np.uint8(255))


def _read(masks: _Masks, patches: Patches, indices: Sequence[int]) -> Read:
    pairs = [_read_pair(masks, patches.paths[index]) for index in indices]
    labels, confidence = (np.stack(part) for part in zip(*pairs, strict=True))
    return Read(patches.read(indices), labels, confidence)
