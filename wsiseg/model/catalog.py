"""The named models: those that ship with wsiseg, and those that can be downloaded elsewhere.

Facts about others' models were taken from their pages and repositories; where those have changed
since, trust the pages. Nothing is downloaded before a command needs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wsiseg.errors import CheckpointError
from wsiseg.model.vits import VITS

__all__ = ["CATALOG", "SHIPPED", "NamedModel", "find_checkpoint", "find_named"]

Kind = Literal["checkpoint", "encoder", "teacher"]


@dataclass(frozen=True)
class NamedModel:
    """One row of the catalogue."""

    name: str
    """Its name here."""
    kind: Kind
    """`checkpoint`: annotates as it is. `encoder`, `teacher`: frozen parts that one trains with."""
    summary: str
    """One line that describes it."""
    licence: str
    """Licence of its weights, by SPDX name where it has one; empty where its authors state none."""
    terms: str
    """What the licence or the authors demand beyond what the licence's name says."""
    gate: str
    """What to do before the download is allowed; empty for nothing."""
    megabytes: int | None
    """Approximate size of its weight file; None for a shipped file, which is measured."""
    fetch: str
    """The command that downloads it; empty if it ships."""
    use: str
    """The settings that use it."""
    page: str
    """Where its authors describe it; empty for wsiseg's own."""
    file: str = ""
    """Name of a shipped file, in this folder."""
    image_size: int | None = None
    """Side of its input images, pixels; None if it takes any."""
    mpp: float | None = None
    """µm/px that it was trained at; None if its authors do not say, or it is not for pathology."""

    @property
    def path(self) -> Path | None:
        """The file of a shipped model."""
        return Path(__file__).with_name(self.file) if self.file else None


CATALOG: tuple[NamedModel, ...] = (
    NamedModel(
        name="tissue",
        kind="checkpoint",
        summary="the default: tissue classes on H&E, learned on 53 slides of many organs",
        licence="CC-BY-4.0",
        terms="name the Pathology Atlas (Serdar Balci, Memorial Patoloji)",
        gate="",
        megabytes=None,
        fetch="",
        use="predict.checkpoint=tissue",
        page="",
        file="tissue.safetensors",
    ),
    NamedModel(
        name="tiny",
        kind="checkpoint",
        summary="for trying the tool: trained on synthetic tissue, useless on real tissue",
        licence="Apache-2.0",
        terms="",
        gate="",
        megabytes=None,
        fetch="",
        use="predict.checkpoint=tiny",
        page="",
        file="tiny.safetensors",
    ),
    NamedModel(
        name="conch",
        kind="encoder",
        summary="CONCH ViT-B/16, pathology images with captions: the paper's encoder",
        licence="CC-BY-NC-ND-4.0",
        terms="academic research only; what was trained on its outputs counts as derived from it",
        gate="accept its terms on the hub with an institutional address; its authors approve",
        megabytes=802,
        fetch="hf download MahmoodLab/CONCH pytorch_model.bin",
        use="encoder=conch",
        page="https://huggingface.co/MahmoodLab/CONCH",
        image_size=448,
        mpp=0.5,
    ),
    NamedModel(
        name="mit-b1",
        kind="teacher",
        summary="SegFormer MiT-B1 (ImageNet): the teacher of conch and open_clip",
        licence="NVIDIA Source Code License",
        terms="research or evaluation only, no commercial use",
        gate="",
        megabytes=55,
        fetch="hf download nvidia/mit-b1 pytorch_model.bin",
        use="encoder=conch or open_clip; only struct_weight=0 does without",
        page="https://huggingface.co/nvidia/mit-b1",
    ),
    NamedModel(
        name="quiltnet-b-16",
        kind="encoder",
        summary="CLIP ViT-B/16, histopathology videos (Quilt-1M): the default of encoder open_clip",
        licence="MIT",
        terms="",
        gate="",
        megabytes=599,
        fetch="hf download wisdomik/QuiltNet-B-16",
        use="encoder=open_clip",
        page="https://huggingface.co/wisdomik/QuiltNet-B-16",
        image_size=224,
    ),
    NamedModel(
        name="biomedclip",
        kind="encoder",
        summary="CLIP ViT-B/16, figures of biomedical papers (PMC-15M)",
        licence="MIT",
        terms="meant for research; its authors advise against deployment",
        gate="",
        megabytes=784,
        fetch="hf download microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
        use="encoder=open_clip encoder_options.model="
        "hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
        page="https://huggingface.co/microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
        image_size=224,
    ),
    NamedModel(
        name="vit-b-16-laion2b",
        kind="encoder",
        summary="CLIP ViT-B/16, images of the web (LAION-2B): not trained on pathology",
        licence="MIT",
        terms="",
        gate="",
        megabytes=599,
        fetch="hf download laion/CLIP-ViT-B-16-laion2B-s34B-b88K --include 'open_clip*'",
        use="encoder=open_clip encoder_options.model=hf-hub:laion/CLIP-ViT-B-16-laion2B-s34B-b88K",
        page="https://huggingface.co/laion/CLIP-ViT-B-16-laion2B-s34B-b88K",
        image_size=224,
    ),
    *(
        NamedModel(
            name=vit.name,
            kind="encoder",
            summary=vit.summary,
            licence=vit.licence,
            terms=vit.terms,
            gate=vit.gate,
            megabytes=vit.megabytes,
            fetch=f"hf download {vit.repository} {vit.file}",
            use=f"encoder=timm encoder_options.model={vit.name}",
            page=f"https://huggingface.co/{vit.repository}",
            image_size=vit.image_size,
            mpp=vit.mpp,
        )
        for vit in VITS
    ),
)
"""Every named model, shipped ones first; to ship a checkpoint, add a row and the file."""

SHIPPED: dict[str, Path] = {row.name: row.path for row in CATALOG if row.path is not None}
"""Checkpoints inside the package, by name."""


def find_named(name: str) -> NamedModel | None:
    """Return the row of `name`, or None."""
    return next((row for row in CATALOG if row.name == name), None)


def find_checkpoint(name_or_path: str | Path) -> Path:
    """Return the file of a checkpoint, given by its path or, if it ships, by its name.

    Raises
    ------
    CheckpointError
        If there is no such file.
    """
    path = SHIPPED.get(str(name_or_path), Path(name_or_path))
    if not path.is_file():
        row = find_named(str(name_or_path))
        if row is not None and row.kind != "checkpoint":
            raise CheckpointError(
                f"{row.name}: is a frozen {row.kind} for training, not a checkpoint ({row.use})"
            )
        known = ", ".join(sorted(SHIPPED))
        raise CheckpointError(
            f"{name_or_path}: no such checkpoint; give the path of a .safetensors file, or {known}"
        )
    return path
