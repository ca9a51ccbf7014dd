"""Choose the best epoch by masks, as the released code does."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from wsiseg.config import EvaluateConfig, digest_of
from wsiseg.digests import hash_files
from wsiseg.evaluate.patches import MaskedPatches
from wsiseg.evaluate.run import check_patches, evaluate_model
from wsiseg.model.source import CamSource

__all__ = ["MaskScore"]

_ORACLE = EvaluateConfig(protocols=("oracle",), resamples=1)


@dataclass(frozen=True)
class MaskScore:
    """Patches with masks, scored after each epoch by the protocol `oracle`."""

    measure: ClassVar[str] = "mean IoU of the masks held out, true classes given"
    patches: MaskedPatches
    config: EvaluateConfig = _ORACLE
    """How they are scored; its first protocol counts."""

    @cached_property
    def identity(self) -> str:
        """Hash of the images' names, of the bytes of images and masks, and of how they are scored.

        That reads each file once more, a fraction of what decoding it takes.
        """
        images, masks = self.patches.images, self.patches.masks
        names = [path.name for path in images]
        return digest_of(names, hash_files(images), hash_files(masks), self.config)

    def check(self, source: CamSource) -> None:
        """Refuse patches that do not fit the model; raises what `evaluate_model` does."""
        check_patches(source, self.patches)

    def __call__(self, source: CamSource) -> float:
        """The mean IoU, in [0, 1]."""
        return evaluate_model(source, self.patches, self.config)[0].scores.miou
