"""SlideStore: one slide's pixels, mask, CAMs, labels and marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wsiseg.errors import StoreError
from wsiseg.grid import TileGrid
from wsiseg.store import layout
from wsiseg.store.coarse import CoarsePart
from wsiseg.store.codecs import CodecName
from wsiseg.store.context import ContextPart
from wsiseg.store.files import Files, open_files
from wsiseg.store.image import ImagePart
from wsiseg.store.layout import FORMAT
from wsiseg.store.maps import MapsPart
from wsiseg.store.opened import find_root_fault, read_meta

__all__ = ["SlideStore"]


class SlideStore(ImagePart, ContextPart, MapsPart, CoarsePart):
    """One slide's Zarr group, opened for reading and writing.

    It may be in a folder or in a bucket: ``s3://``, ``gs://``, ``az://`` or ``memory://`` with the
    extra `cloud`. Cheap to open and picklable by its location: workers open their own.

    Parameters
    ----------
    path
        The folder or URL.
    run
        Token of the run that holds the store's lock, if any: no block is begun or marked after
        another run has taken over.

    Raises
    ------
    StoreError
        If the location holds something that wsiseg did not write, or another format version.
    MissingDependencyError
        If a URL needs obstore.
    """

    def __reduce__(self) -> tuple[type[SlideStore], tuple[str | Path, str]]:
        return SlideStore, (self.location, self._run)

    @classmethod
    def create(
        cls,
        path: str | Path,
        grid: TileGrid,
        mpp: float,
        slide: dict[str, Any],
        codec: CodecName = "lz4",
    ) -> SlideStore:
        """Create the store, or open it if it was made from the same slide and grid.

        `slide` is plain JSON: name, path, identity, size, mpp, bounds. If the slide has moved, its
        new path is recorded. `codec` compresses the image of a new store; as all codecs are
        lossless, an existing store keeps its own. A store of another grid, mpp or slide is laid
        out again in the same place, and all its marks are cleared.

        Raises
        ------
        StoreError
            If the location holds something that wsiseg did not write, or that a newer one did.
        """
        meta: dict[str, Any] = {
            "format": FORMAT,
            "mpp": mpp,
            "slide": slide,
            "grid": {name: getattr(grid, name) for name in grid.__dataclass_fields__},
            "codec": codec,
        }
        try:
            existing = cls(path)
        except StoreError:
            if _is_newer(open_files(path)):
                raise  # the error names its format and those that can be read
            if not _is_free(open_files(path)):
                if find_root_fault(open_files(path)):
                    raise  # the error names the file
                raise StoreError(
                    f"{path}: holds something that wsiseg did not write; choose another path"
                ) from None
        else:
            if _same_pixels(existing.meta, meta) and existing.has_image:
                meta["codec"] = existing.meta["codec"]
                if existing.meta != meta:
                    existing._group.attrs["wsiseg"] = existing.meta = meta
                existing._group.require_group("image")
                return existing
        layout.lay_out_store(open_files(path), grid, meta, codec)
        return cls(path)


def _is_newer(files: Files) -> bool:
    """Whether a newer wsiseg wrote a store here, which must not be replaced."""
    try:
        return int(read_meta(files)["format"]) > FORMAT
    except (KeyError, TypeError, ValueError):
        return False


def _is_free(files: Files) -> bool:
    """Whether a store may be created here: nothing exists, an empty folder, or one we began."""
    if files.read("zarr.json") is None:
        return files.empty()
    try:
        return bool(read_meta(files))
    except (KeyError, TypeError, ValueError):
        return False


def _same_pixels(existing: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether two stores' facts describe the same raster of the same slide, wherever it is."""
    rasters = [{key: meta[key] for key in ("format", "mpp", "grid")} for meta in (existing, wanted)]
    slides = [
        {key: value for key, value in meta["slide"].items() if key not in ("path", "mpp_source")}
        for meta in (existing, wanted)
    ]
    return rasters[0] == rasters[1] and slides[0] == slides[1]
