"""The table: mean IoU of every arm with its interval, and the difference from the base."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from arms import ARMS, BASE, CAMS
from data import SEEDS

from wsiseg.evaluate.bootstrap import draw_means


@dataclass
class Row:
    """The results of an arm over all seeds."""

    matrices: dict[str, np.ndarray] = field(default_factory=dict)
    slides: dict[str, list[str]] = field(default_factory=dict)
    precision: list[float] = field(default_factory=list)

    def draws(self, name: str) -> np.ndarray:
        """Return the mean IoU of 1,000 draws of slides; the last is without resampling."""
        matrices = self.matrices[name]
        whole = draw_means(matrices.sum(0, keepdims=True), resamples=1)
        return np.append(draw_means(matrices, cases=self.slides[name]), whole)


def gather(keep: Path, encoder: str) -> dict[str, Row]:
    """Gather the arms that are finished for all seeds."""
    rows = {}
    for number, arm in enumerate(ARMS | CAMS[encoder]):
        paths = [keep / f"{encoder}-{seed}-{number}.npz" for seed in SEEDS]
        if not all(path.exists() for path in paths):
            continue
        parts = [dict(np.load(path)) for path in paths]
        measures = [n for n in parts[0] if n != "precision" and not n.endswith("/slides")]
        rows[arm] = Row(
            {n: np.concatenate([part[n] for part in parts]) for n in measures},
            {n: [s for part in parts for s in part[f"{n}/slides"].tolist()] for n in measures},
            [float(part["precision"][0]) for part in parts if "precision" in part],
        )
    return rows


def show(rows: dict[str, Row]) -> None:
    """Print the table: mean IoU with its interval, and the paired difference from the base."""
    measures = list(next(iter(rows.values())).matrices)
    base = {name: rows[BASE].draws(name) for name in measures}
    head = [f"{m.replace('given', 'labels given').replace('free', 'none given')} | difference"
            for m in measures]  # fmt: skip
    print(f"\n| | {' | '.join(head)} | AP of tiles |")
    print("|---" * (2 * len(measures) + 2) + "|")
    for arm, row in rows.items():
        cells = []
        for name in measures:
            draws = row.draws(name)
            low, high = np.nanpercentile(draws[:-1], (2.5, 97.5))
            cells.append(f"{draws[-1]:.3f} ({low:.3f} to {high:.3f})")
            apart = draws - base[name]
            low, high = np.nanpercentile(apart[:-1], (2.5, 97.5))
            cells.append("" if arm == BASE else f"{apart[-1]:+.3f} ({low:+.3f} to {high:+.3f})")
        tiles = [f"{value:.3f}" for value in row.precision]
        cells.append(f"{np.mean(row.precision):.3f} ({', '.join(tiles)})" if tiles else "")
        print(f"| {arm} | {' | '.join(cells)} |", flush=True)
