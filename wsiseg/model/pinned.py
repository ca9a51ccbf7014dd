"""Pin the source of CAMs that the settings name: every worker loads exactly that, or refuses.

A pinned source is small, is sent with the blocks, and is loaded once per process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray

from wsiseg.config import PredictConfig, digest_of
from wsiseg.errors import CheckpointError
from wsiseg.model.checkpoint import read_info
from wsiseg.model.encoders import (
    PromptEncoder,
    check_options,
    keep_portable,
    load_prompt_encoder,
)
from wsiseg.model.load import load_source
from wsiseg.model.prompt_file import PromptSet, read_prompts
from wsiseg.model.prompts import PromptSource, embed_prompts
from wsiseg.model.source import CamSource

__all__ = ["PinnedSource", "pin_source"]

_T = TypeVar("_T")


class PinnedSource(Protocol):
    """A source that is identified but not loaded; picklable."""

    @property
    def identity(self) -> str:
        """Digest of everything that determines its CAMs, wherever its files are stored."""
        ...

    def load(self, device: torch.device) -> CamSource:
        """Load the source onto a device, once per process; threads share it, as it is only read.

        Raises
        ------
        CheckpointError
            If its files are not those that were pinned.
        """
        ...


def pin_source(settings: PredictConfig) -> PinnedSource:
    """Pin the source of the settings: their prompts if they have any, else their checkpoint.

    Raises
    ------
    CheckpointError
        If the file is not a checkpoint, or an encoder's weights or tokenizer are not found.
    ConfigError
        If the prompt file is refused, or the encoder is unknown or cannot be used with prompts.
    MissingDependencyError
        If the encoder needs a package that is not installed; gives the install line.
    """
    if settings.prompts is None:
        return _PinnedCheckpoint(settings, read_info(settings.checkpoint).sha256)
    prompts = read_prompts(settings.prompts)
    key = (prompts.model_dump_json(), _encoder_key(settings), _window_key(settings))
    return _once(("pin", *key), lambda: _pin_prompts(settings, prompts))


@dataclass(frozen=True, eq=False)
class _PinnedCheckpoint:
    settings: PredictConfig
    identity: str
    """sha256 of the file."""

    def load(self, device: torch.device) -> CamSource:
        settings, options = self.settings, self.settings.encoder_options
        key = ("checkpoint", settings.checkpoint, self.identity, str(device), repr(options))
        return _once(key, lambda: self._load(device))

    def _load(self, device: torch.device) -> CamSource:
        path = self.settings.checkpoint
        source = load_source(path, self.settings.encoder_options, device)
        if source.info.sha256 != self.identity:
            raise CheckpointError(
                f"{path}: is not the file that this run started with (sha256 "
                f"{source.info.sha256[:12]}, not {self.identity[:12]}); all workers need the same"
            )
        return source


@dataclass(frozen=True, eq=False)
class _PinnedPrompts:
    settings: PredictConfig
    prompts: PromptSet
    encoder: str
    """`Encoder.identity` of the encoder that embedded the texts."""
    texts: NDArray[np.float32]
    """``(channels, E)``, embedded once: no worker needs the tokenizer or the text tower."""
    identity: str

    def load(self, device: torch.device) -> CamSource:
        return _once(("prompts", self.identity, str(device)), lambda: self._load(device))

    def _load(self, device: torch.device) -> CamSource:
        settings = self.settings
        encoder = _load_encoder(settings, device)
        if encoder.identity != self.encoder:
            raise CheckpointError(
                f"encoder {settings.encoder!r} is {encoder.identity} here, and {self.encoder} "
                f"where this run started; all workers need the same weights"
            )
        temperature = self.prompts.temperature
        return PromptSource(
            encoder, self.prompts.palette, torch.from_numpy(self.texts).to(device),
            window=settings.prompt_window, stride=settings.prompt_stride,
            features=settings.prompt_features, name=settings.encoder,
            scale=None if temperature is None else 1 / temperature,
        )  # fmt: skip


def _pin_prompts(settings: PredictConfig, prompts: PromptSet) -> _PinnedPrompts:
    check_options(settings.encoder, settings.encoder_options, texts=True)
    encoder = _load_encoder(settings, torch.device("cpu"))
    texts = embed_prompts(encoder, prompts).numpy()
    identity = digest_of(
        "prompts", prompts, settings.encoder, encoder.identity,
        keep_portable(settings.encoder_options), _window_key(settings),
    )  # fmt: skip
    return _PinnedPrompts(settings, prompts, encoder.identity, texts, identity)


def _load_encoder(settings: PredictConfig, device: torch.device) -> PromptEncoder:
    """Load the encoder onto a device, once per process and device."""

    def make() -> PromptEncoder:
        made = load_prompt_encoder(settings.encoder, **settings.encoder_options)
        return cast(PromptEncoder, cast(torch.nn.Module, made).to(device))

    return _once(("encoder", _encoder_key(settings), str(device)), make)


def _encoder_key(settings: PredictConfig) -> str:
    return repr((settings.encoder, settings.encoder_options))


def _window_key(settings: PredictConfig) -> list[int | str | None]:
    return [settings.prompt_window, settings.prompt_stride, settings.prompt_features]


_LOADED: dict[str, object] = {}
_LOADING = threading.RLock()  # a source loads its encoder


def _once(key: tuple[object, ...], make: Callable[[], _T]) -> _T:
    """Return the result of `make`, called once per process and key."""
    with _LOADING:
        if repr(key) not in _LOADED:
            _LOADED[repr(key)] = make()
        return cast(_T, _LOADED[repr(key)])
