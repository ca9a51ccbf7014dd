"""Pictures of how a model sees a patch: CAMs, similarity to prototypes, features by stage.

The last, with a checkpoint that was trained without distillation beside it, is the paper's Figure
3. No masks are needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from wsiseg.annotations import Palette
from wsiseg.atomic import write_picture
from wsiseg.errors import CheckpointError, DataError
from wsiseg.evaluate.sheet import LINE, Pixels, draw_bar, heat, overlay, wrap
from wsiseg.image_files import list_images, read_image
from wsiseg.model.cam import cosine_cams
from wsiseg.model.construct import ConStruct
from wsiseg.model.device import open_device
from wsiseg.model.load import load_source
from wsiseg.model.source import CamSource
from wsiseg.model.trained import TrainedModel, load_trained
from wsiseg.table import list_problems

__all__ = ["KINDS", "Kind", "draw_cams", "draw_features", "draw_prototypes", "write_figures"]

Kind = Literal["cams", "prototypes", "features"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""What can be drawn."""

_PANEL = 224  # smaller patches are drawn at a whole multiple of their size

Array = NDArray[np.float32]


def write_figures(
    checkpoint: str | Path,
    patches: Sequence[str | Path],
    out: str | Path,
    kinds: Sequence[Kind] | None = None,
    *,
    without: str | Path | None = None,
    encoder_options: Mapping[str, Any] | None = None,
    device: str = "auto",
) -> list[Path]:
    """Draw patches as a checkpoint sees them: ``<out>/<patch>_<kind>.png`` per patch and kind.

    Parameters
    ----------
    checkpoint
        A shipped checkpoint's name, or a file.
    patches
        RGB images, or folders of them.
    kinds
        None: all that the checkpoint has.
    without
        A checkpoint trained without distillation, for a row of its own in the features.
    encoder_options
        Passed on to `load_checkpoint`, for both checkpoints.

    Raises
    ------
    CheckpointError
        If a checkpoint cannot be used, or has no such part to draw.
    DataError
        If there is no patch, two have one name, or a patch cannot be read or does not fit the
        encoder; lists every problem.
    """
    where, out = open_device(device), Path(out)
    first = load_source(checkpoint, encoder_options, where)
    compared: dict[str, ConStruct] = {}
    if isinstance(first, TrainedModel):
        compared["with distillation" if without else "adapted"] = first.model
        kinds = kinds or KINDS
    elif set(kinds or ()) - {"cams"}:
        raise CheckpointError(
            f"{checkpoint}: is a segmenter, which has no prototypes, and no stages to compare; ask "
            f"for its CAMs alone (--kind cams)"
        )
    if without is not None:
        compared["without distillation"] = load_trained(without, encoder_options, where).model
    written = []
    for path, image in _read_patches(patches, first):
        for kind in dict.fromkeys(kinds or ("cams",)):
            sheet = _draw(kind, first, compared, image)
            written.append(write_picture(sheet, out / f"{path.stem}_{kind}.png"))
    return written


def _draw(
    kind: Kind, loaded: CamSource, compared: Mapping[str, ConStruct], image: Pixels
) -> Image.Image:
    if kind == "cams":
        return draw_cams(loaded, image)
    if kind == "prototypes":
        return draw_prototypes(next(iter(compared.values())), loaded.palette, image)
    return draw_features(compared, image)


@torch.inference_mode()
def draw_cams(source: CamSource, image: Pixels) -> Image.Image:
    """Draw each class's CAM over ``(H, W, 3)`` RGB, all on one scale; its probability is above.

    The CAMs are ungated and from a single pass.
    """
    palette, seen = source.palette, source.look(_to_batch(image, source.device))
    logits = source.pool(seen)[:, : len(palette)]
    maps = _resize(F.relu(seen[:, : len(palette)]), image)
    top = max(float(maps.max()), 1e-6)
    shares = torch.sigmoid(logits)[0].tolist()
    titles = [f"{name}  p {share:.2f}" for name, share in zip(palette.names, shares, strict=True)]
    enlarged = _enlarge(image)
    panels = [enlarged, *(overlay(enlarged, _enlarge(one / top)) for one in maps)]
    sheet = wrap([panels], ["image", *titles], foot=LINE)
    draw_bar(sheet, "CAM  0 or less", f"{top:.2f}")
    return sheet


@torch.inference_mode()
def draw_prototypes(model: ConStruct, palette: Palette, image: Pixels) -> Image.Image:
    """Draw every prototype's cosine with every cell of ``(H, W, 3)`` RGB, all on one scale.

    One column per class, one row per prototype of it.
    """
    levels = model.cam_levels
    pyramid = model.encoder.pyramid(_to_batch(image, _device_of(model)), levels)
    features = model.cam_features(dict(zip(levels, pyramid, strict=True)))
    bank = model.l_fc(model.bank)
    maps = _resize(cosine_cams(features, bank, features.new_ones(()), len(bank)), image)
    low, high = float(maps.min()), float(maps.max())
    scaled = (maps - low) / max(high - low, 1e-6)
    count = len(bank) // model.classes
    panels = [[heat(_enlarge(one)) for one in scaled[row::count]] for row in range(count)]
    rows = [[_enlarge(image), *row] for row in panels]
    names = [f"prototype {row + 1}" for row in range(count)] if count > 1 else []
    others = ["background"] * (model.classes - len(palette))
    sheet = wrap(rows, ["image", *palette.names, *others], names, foot=LINE)
    draw_bar(sheet, f"cosine  {low:.2f}", f"{high:.2f}")
    return sheet


@torch.inference_mode()
def draw_features(models: Mapping[str, ConStruct], image: Pixels) -> Image.Image:
    """Draw feature activation per stage: the frozen encoder's, then each model's.

    Activation is the mean magnitude over the channels of a cell, each panel on its own scale. A
    stage without an adapter in a model is the frozen one. `image` is ``(H, W, 3)`` RGB.
    """
    first = next(iter(models.values()))
    pyramid = first.encoder.pyramid(_to_batch(image, _device_of(first)))
    stages = {"frozen encoder": pyramid}
    for name, model in models.items():
        own = model.encoder.pyramid(_to_batch(image, _device_of(model)))
        stages[name] = [_refine(model, level, number) for number, level in enumerate(own)]
    rows = []
    for levels in stages.values():
        maps = [_resize(level.abs().mean(1, keepdim=True), image)[0] for level in levels]
        rows.append([_enlarge(image), *(heat(_enlarge(_stretch(one))) for one in maps)])
    titles = [
        f"stage {number + 1}  {level.shape[2]} x {level.shape[3]}"
        for number, level in enumerate(pyramid)
    ]
    sheet = wrap(rows, ["image", *titles], list(stages), foot=LINE)
    draw_bar(sheet, "activation  least", "most of the panel")
    return sheet


def _refine(model: ConStruct, features: Tensor, level: int) -> Tensor:
    """Apply the level's adapter, if the model has one."""
    name = str(level)
    if name not in model.structure_adapters:
        return features
    adapted: Tensor = model.structure_adapters[name](features)
    return adapted


def _device_of(model: ConStruct) -> torch.device:
    return model.logit_scale.device


def _to_batch(image: Pixels, device: torch.device) -> Tensor:
    pixels = torch.from_numpy(image.copy()).to(device)
    return pixels.permute(2, 0, 1)[None].float() / 255


def _resize(maps: Tensor, image: Pixels) -> Array:
    """``(1, N, h, w)`` to ``(N, H, W)`` of the image."""
    resized = F.interpolate(maps, image.shape[:2], mode="bilinear", align_corners=False)
    return np.asarray(resized[0].float().cpu().numpy())


def _stretch(values: Array) -> Array:
    low, high = values.min(), values.max()
    return np.asarray((values - low) / max(high - low, 1e-12), np.float32)


def _enlarge(panel: NDArray[Any]) -> NDArray[Any]:
    times = -(-_PANEL // min(panel.shape[:2]))
    return panel.repeat(times, 0).repeat(times, 1)


def _read_patches(given: Sequence[str | Path], source: CamSource) -> list[tuple[Path, Pixels]]:
    patches: dict[str, tuple[Path, Pixels]] = {}
    problems: list[str] = []
    for path in _find_images(given):
        try:
            pixels = read_image(path)
        except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
            problems.append(f"{path}: cannot be read ({error})")
            continue
        problems += _misfit(path, pixels, source)
        if path.stem in patches:
            problems.append(f"{path}: another patch is named {path.stem} too")
        patches[path.stem] = path, pixels
    if not patches and not problems:
        problems.append(f"no image in {', '.join(map(str, given)) or 'nothing'}")
    if problems:
        listed = list_problems(problems)
        raise DataError(f"{len(problems):,} problem(s) with the patches{listed}")
    return list(patches.values())


def _find_images(given: Sequence[str | Path]) -> Iterator[Path]:
    for path in map(Path, given):
        if path.is_dir():
            yield from list_images(path)
        else:
            yield path


def _misfit(path: Path, pixels: Pixels, source: CamSource) -> list[str]:
    height, width = pixels.shape[:2]
    if source.sides.fits(height) and source.sides.fits(width):
        return []
    return [f"{path}: is {width} x {height} px; the encoder needs {source.sides}"]
