"""Score a checkpoint on a data set, and write its tables and pictures to a folder."""

from __future__ import annotations

from concurrent.futures import Executor
from pathlib import Path

from wsiseg.annotations import Palette
from wsiseg.atomic import write_picture
from wsiseg.compute import Progress
from wsiseg.config import EvaluateConfig
from wsiseg.evaluate.patches import load_masked_patches
from wsiseg.evaluate.pictures import draw_maps, draw_predictions, write_labels
from wsiseg.evaluate.report import write_report
from wsiseg.evaluate.run import Evaluation, Scored, evaluate_model
from wsiseg.model.device import open_device
from wsiseg.model.load import load_source

__all__ = ["evaluate_checkpoint"]


def evaluate_checkpoint(
    checkpoint: str | Path,
    data: str | Path,
    config: EvaluateConfig,
    out: str | Path | None = None,
    *,
    split: str = "test",
    pictures: int = 8,
    save_labels: bool = False,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> tuple[Evaluation, ...]:
    """Score a checkpoint, one `Evaluation` per protocol, each with a folder of its own in `out`.

    Parameters
    ----------
    checkpoint
        A shipped checkpoint's name, or a file.
    data, split
        As in `load_masked_patches`.
    out
        Gets ``<protocol>/`` with the tables of `write_report`, ``predictions.png``, ``maps.png``
        and, if asked, ``labels/``. None: nothing is written.
    pictures
        Number of patches to draw, the first ones by name.
    save_labels
        Whether every patch's labels are written, numbered as the masks are.
    executor, progress
        As in `evaluate_model`.

    Raises
    ------
    CheckpointError
        If the checkpoint cannot be used.
    DataError
        If anything is wrong with the patches; lists every problem.
    ConfigError
        If the device does not exist.
    """
    source = load_source(checkpoint, config.encoder_options, open_device(config.device))
    palette = source.palette
    patches = load_masked_patches(data, palette.names, split)
    gallery = _Gallery(Path(out), palette, pictures, save_labels) if out is not None else None
    evaluations = evaluate_model(
        source, patches, config, executor=executor, progress=progress,
        visit=None if gallery is None else gallery.take,
    )  # fmt: skip
    if gallery is not None:
        gallery.write()
        for evaluation in evaluations:
            write_report(evaluation, source.info, patches.folder, gallery.out / evaluation.protocol)
    return evaluations


class _Gallery:
    """Collects patches as they are scored; keeps only the few that are drawn."""

    def __init__(self, out: Path, palette: Palette, pictures: int, save_labels: bool) -> None:
        self.out, self._palette = out, palette
        self._pictures, self._save_labels = pictures, save_labels
        self._drawn: dict[str, list[Scored]] = {}

    def take(self, scored: Scored) -> None:
        if self._save_labels:
            write_labels(scored, self._palette, self.out / scored.protocol / "labels")
        if scored.number < self._pictures:
            self._drawn.setdefault(scored.protocol, []).append(scored)

    def write(self) -> None:
        for protocol, drawn in self._drawn.items():
            drawn.sort(key=lambda one: one.number)
            folder = self.out / protocol
            write_picture(draw_predictions(drawn, self._palette), folder / "predictions.png")
            write_picture(draw_maps(drawn, self._palette), folder / "maps.png")
