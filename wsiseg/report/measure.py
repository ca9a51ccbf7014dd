"""How much of each class one slide holds."""

from __future__ import annotations

from wsiseg.annotations import Annotations

__all__ = ["measure_classes"]


def measure_classes(annotations: Annotations, tissue_mm2: float) -> list[dict[str, object]]:
    """One row a class, in palette order, also for a class that does not occur.

    Parameters
    ----------
    tissue_mm2 : tissue area of the slide in mm².

    Returns
    -------
    Rows of slide, class, area_mm2, fraction_of_tissue, n_regions and mean_confidence (weighted by
    area; empty where there is no region).
    """
    rows: list[dict[str, object]] = []
    for label, name in enumerate(annotations.palette.names):
        regions = [region for region in annotations.regions if region.label == label]
        pixels = sum(region.area_px for region in regions)
        weighted = sum(region.confidence * region.area_px for region in regions)
        area = pixels * annotations.mpp**2 / 1e6
        rows.append(
            {
                "slide": annotations.slide,
                "class": name,
                "area_mm2": area,
                "fraction_of_tissue": area / tissue_mm2 if tissue_mm2 > 0 else 0.0,
                "n_regions": len(regions),
                "mean_confidence": round(weighted / pixels, 6) if pixels else "",
            }
        )
    return rows
