"""Vision transformers that encoder `timm` knows by a short name: a literal table, without torch.

Architectures and constructor arguments are those that the authors' pages and timm give. Where
licences or gates have changed since, trust the pages.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "VITS", "KnownVit", "find_vit"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_H_OPTIMUS_MEAN, _H_OPTIMUS_STD = (0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517)
_HIBOU_MEAN, _HIBOU_STD = (0.7068, 0.5755, 0.722), (0.195, 0.2316, 0.1816)

_SWIGLU: dict[str, Any] = {"mlp_layer": "SwiGLUPacked", "act_layer": "silu"}
_DINO_SWIGLU = 2.66667 * 2  # timm's ratio counts both halves of the packed layer
_REGISTERS: dict[str, Any] = {"reg_tokens": 4, "no_embed_class": True}
_INSTITUTION = "accept its terms on the hub with an institutional address; its authors approve"
_NO_COMMERCE = "academic research only; what was trained on its outputs counts as derived from it"


@dataclass(frozen=True)
class KnownVit:
    """One vision transformer, and how timm makes it."""

    name: str
    """Its name here."""
    repository: str
    """Repository on the hub."""
    file: str
    """Weight file in that repository."""
    summary: str
    """One line that describes it."""
    licence: str
    """Licence of its weights, by SPDX name where it has one."""
    megabytes: int
    """Approximate size of the weights."""
    architecture: str
    """timm's name of the architecture."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Arguments of timm's constructor besides the image size; layers by their names."""
    image_size: int = 224
    """Side of its input images, pixels."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Mean of its normalisation, RGB in [0, 1]."""
    std: tuple[float, float, float] = IMAGENET_STD
    """Standard deviation of its normalisation."""
    mpp: float | None = 0.5
    """µm/px of these images; None if its authors do not say, or it is not for pathology."""
    terms: str = ""
    """What the licence or the authors demand beyond what the licence's name says."""
    gate: str = ""
    """What to do before the download is allowed; empty for nothing."""


VITS: tuple[KnownVit, ...] = (
    KnownVit(
        name="uni2-h",
        repository="MahmoodLab/UNI2-h",
        file="pytorch_model.bin",
        summary="UNI2-h, ViT-H/14 with 8 registers (DINOv2 on 200 million tiles)",
        licence="CC-BY-NC-ND-4.0",
        terms=_NO_COMMERCE,
        gate=_INSTITUTION,
        megabytes=2726,
        architecture="vit_giant_patch14_224",
        arguments={
            "patch_size": 14,
            "depth": 24,
            "num_heads": 24,
            "embed_dim": 1536,
            "mlp_ratio": _DINO_SWIGLU,
            "init_values": 1e-5,
            "reg_tokens": 8,
            "no_embed_class": True,
            **_SWIGLU,
        },
    ),
    KnownVit(
        name="uni",
        repository="MahmoodLab/UNI",
        file="pytorch_model.bin",
        summary="UNI, ViT-L/16 (DINOv2 on 100,000 slides)",
        licence="CC-BY-NC-ND-4.0",
        terms=_NO_COMMERCE,
        gate=_INSTITUTION,
        megabytes=1213,
        architecture="vit_large_patch16_224",
        arguments={"init_values": 1e-5},
    ),
    KnownVit(
        name="virchow2",
        repository="paige-ai/Virchow2",
        file="model.safetensors",
        summary="Virchow2, ViT-H/14 with 4 registers (DINOv2 on 3.1 million slides)",
        licence="CC-BY-NC-ND-4.0",
        terms="non-commercial academic research only",
        gate=_INSTITUTION,
        megabytes=2525,
        architecture="vit_huge_patch14_224",
        arguments={
            "init_values": 1e-5,
            "reg_tokens": 4,
            "mlp_ratio": 5.3375,
            "global_pool": "",
            **_SWIGLU,
        },
    ),
    KnownVit(
        name="h-optimus-0",
        repository="bioptimus/H-optimus-0",
        file="pytorch_model.bin",
        summary="H-optimus-0, ViT-g/14 with 4 registers (500,000 slides)",
        licence="Apache-2.0",
        gate="accept its terms on the hub",
        megabytes=4539,
        architecture="vit_giant_patch14_reg4_dinov2",
        arguments={"init_values": 1e-5},
        mean=_H_OPTIMUS_MEAN,
        std=_H_OPTIMUS_STD,
    ),
    KnownVit(
        name="h-optimus-1",
        repository="bioptimus/H-optimus-1",
        file="pytorch_model.bin",
        summary="H-optimus-1, ViT-g/14 with 4 registers (a million slides)",
        licence="CC-BY-NC-ND-4.0",
        terms="non-commercial academic research only",
        gate=_INSTITUTION,
        megabytes=4539,
        architecture="vit_giant_patch14_reg4_dinov2",
        arguments={"init_values": 1e-5},
        mean=_H_OPTIMUS_MEAN,
        std=_H_OPTIMUS_STD,
    ),
    KnownVit(
        name="prov-gigapath",
        repository="prov-gigapath/prov-gigapath",
        file="pytorch_model.bin",
        summary="Prov-GigaPath's tile encoder, ViT-g/16 (DINOv2 on 1.3 billion tiles)",
        licence="Apache-2.0",
        terms="its form of access asks for non-commercial research, whatever the licence says",
        gate="fill in its form on the hub",
        megabytes=4540,
        architecture="vit_giant_patch14_dinov2",
        arguments={
            "patch_size": 16,
            "embed_dim": 1536,
            "depth": 40,
            "num_heads": 24,
            "mlp_ratio": 5.33334,
            "init_values": 1e-5,
        },
    ),
    KnownVit(
        name="conch-1.5",
        repository="MahmoodLab/conchv1_5",
        file="pytorch_model_vision.bin",
        summary="CONCH v1.5, the image tower alone, ViT-L/16 at 448 px",
        licence="CC-BY-NC-ND-4.0",
        terms=_NO_COMMERCE,
        gate=_INSTITUTION,
        megabytes=1240,
        architecture="vit_large_patch16_224",
        arguments={"init_values": 1.0},
        image_size=448,
        mpp=0.57,  # its authors cut 512 px at 0.5 µm/px, and make them 448
    ),
    KnownVit(
        name="phikon-v2",
        repository="owkin/phikon-v2",
        file="model.safetensors",
        summary="Phikon-v2, ViT-L/16 (DINOv2 on 58,000 public slides)",
        licence="Owkin non-commercial licence",
        terms="non-commercial use only; read LICENSE.pdf on its page",
        megabytes=1213,
        architecture="vit_large_patch16_224",
        arguments={"init_values": 1.0},
    ),
    KnownVit(
        name="hibou-b",
        repository="histai/hibou-b",
        file="model.safetensors",
        summary="Hibou-B, ViT-B/14 with 4 registers (DINOv2 on a million slides, many stains)",
        licence="Apache-2.0",
        megabytes=343,
        architecture="vit_base_patch14_reg4_dinov2",
        arguments={"mlp_ratio": 2 * 2048 / 768, **_REGISTERS, **_SWIGLU},
        mean=_HIBOU_MEAN,
        std=_HIBOU_STD,
        mpp=None,
    ),
    KnownVit(
        name="hibou-l",
        repository="histai/hibou-L",
        file="model.safetensors",
        summary="Hibou-L, ViT-L/14 with 4 registers (DINOv2 on a million slides, many stains)",
        licence="Apache-2.0",
        gate="accept its terms on the hub",
        megabytes=1214,
        architecture="vit_large_patch14_reg4_dinov2",
        arguments={"mlp_ratio": 2 * 2736 / 1024, **_REGISTERS, **_SWIGLU},
        mean=_HIBOU_MEAN,
        std=_HIBOU_STD,
        mpp=None,
    ),
    KnownVit(
        name="dinov2-s",
        repository="timm/vit_small_patch14_reg4_dinov2.lvd142m",
        file="model.safetensors",
        summary="DINOv2 ViT-S/14 with 4 registers, images of the web: not trained on pathology",
        licence="Apache-2.0",
        megabytes=88,
        architecture="vit_small_patch14_reg4_dinov2",
        mpp=None,
    ),
    KnownVit(
        name="dinov2-b",
        repository="timm/vit_base_patch14_reg4_dinov2.lvd142m",
        file="model.safetensors",
        summary="DINOv2 ViT-B/14 with 4 registers, images of the web: not trained on pathology",
        licence="Apache-2.0",
        megabytes=346,
        architecture="vit_base_patch14_reg4_dinov2",
        mpp=None,
    ),
    KnownVit(
        name="imagenet-b",
        repository="timm/vit_base_patch16_224.augreg2_in21k_ft_in1k",
        file="model.safetensors",
        summary="ViT-B/16 on ImageNet labels: not trained on pathology",
        licence="Apache-2.0",
        megabytes=346,
        architecture="vit_base_patch16_224",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        mpp=None,
    ),
)
"""Those of pathology first, from the largest; general ones last."""


def find_vit(name: str) -> KnownVit | None:
    """Return the row of a short name or a hub repository, whatever its case; or None."""
    wanted = name.casefold()
    return next((v for v in VITS if wanted in (v.name, v.repository.casefold())), None)
