from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from tests.model.encoders.test_timm import small_state, timm
from tests.model.hub import Answer, Hub, serving
from wsiseg.errors import CheckpointError
from wsiseg.model.encoders.timm import TimmEncoder

COMMIT = "b2" * 20


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """A hub of our own; what it is to hold is put in, by ``owner/name/file``."""
    constants = pytest.importorskip("huggingface_hub").constants
    held: dict[str, bytes] = {}

    class Held(Hub):
        commit = COMMIT

        def find(self, owner: str, name: str, revision: str, file: str) -> Answer:
            if owner == "paige-ai":
                return Answer(status=401, refusal="GatedRepo")
            content = held.get(f"{owner}/{name}/{file}")
            return Answer(content) if content else Answer(status=404, refusal="EntryNotFound")

    with serving(Held) as place:
        template = place + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", place)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield held


def test_public_names_are_fetched_and_the_commit_is_kept(hub: dict[str, bytes]) -> None:
    tensors, arguments = small_state("h-optimus-1")
    content = io.BytesIO()
    torch.save(tensors, content)
    hub["bioptimus/H-optimus-1/pytorch_model.bin"] = content.getvalue()
    for name in ("h-optimus-1", "hf-hub:bioptimus/H-optimus-1"):
        encoder = TimmEncoder(name, arguments=arguments)
        assert encoder.mean == (0.707223, 0.578729, 0.703617)
        assert encoder.weights.source == "bioptimus/H-optimus-1/pytorch_model.bin"
        assert encoder.weights.revision == COMMIT
        assert encoder.pyramid(torch.rand(1, 3, 224, 224), [2])[0].shape == (1, 96, 16, 16)


def test_another_repository_brings_its_configuration(hub: dict[str, bytes]) -> None:
    arguments = {"depth": 4, "embed_dim": 48, "num_heads": 4, "patch_size": 8, "img_size": 64}
    own = timm.create_model("vit_tiny_patch16_224", num_classes=0, **arguments)
    hub["some/vit/model.safetensors"] = save(own.state_dict())
    hub["some/vit/config.json"] = json.dumps(
        {"architecture": "vit_tiny_patch16_224", "model_args": arguments, "mean": [0.5, 0.4, 0.5]}
    ).encode()
    encoder = TimmEncoder("hf-hub:some/vit")
    assert (encoder.image_size, encoder.patch, encoder.mean) == (64, 8, (0.5, 0.4, 0.5))


def test_a_gated_name_says_how_to_get_in(hub: dict[str, bytes]) -> None:
    words = (
        r"paige-ai/Virchow2: .*accept .*terms .*token.*hf auth login.*encoder_options\.weights=PATH"
    )
    with pytest.raises(CheckpointError, match=words):
        TimmEncoder("virchow2")
