"""The encoders `small` and `lite`, whose networks were taught by labelled tiles, and both."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from wsiseg.errors import CheckpointError
from wsiseg.model.encoders import learned as module
from wsiseg.model.encoders import load_encoder
from wsiseg.model.encoders.ensemble import EnsembleEncoder
from wsiseg.model.encoders.half_network import fold
from wsiseg.model.encoders.learned import pack_encoder
from wsiseg.model.encoders.lite import LiteEncoder
from wsiseg.model.encoders.lite_network import LiteNetwork
from wsiseg.model.encoders.small import SmallEncoder
from wsiseg.model.encoders.small_network import SmallNetwork


@pytest.fixture(scope="module", params=[SmallEncoder, LiteEncoder, EnsembleEncoder])
def encoder(request):
    return request.param()


@pytest.fixture(scope="module", params=[SmallEncoder, LiteEncoder])
def single(request):
    return request.param()


@pytest.fixture(scope="module", params=[SmallNetwork, LiteNetwork])
def learned(request):
    """A network whose norms have seen something."""
    torch.manual_seed(0)
    network = request.param(folded=False)
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(2, 3, 128, 128))
    return network.eval()


def test_levels_have_the_strides_and_channels_that_it_says(encoder):
    maps = encoder.pyramid(torch.rand(2, 3, 224, 160))
    for found, channels, stride in zip(
        maps, encoder.level_channels, encoder.level_strides, strict=True
    ):
        assert found.shape == (2, channels, 224 // stride, 160 // stride)
        assert found.dtype == torch.float32


@pytest.mark.parametrize("levels", [(0,), (1,), (2,), (3,), (3, 1)])
def test_a_level_alone_is_that_of_all(encoder, levels):
    images = torch.rand(1, 3, 128, 128)
    whole, some = encoder.pyramid(images), encoder.pyramid(images, levels)
    for level, found in zip(levels, some, strict=True):
        torch.testing.assert_close(found, whole[level], rtol=0, atol=0)


def test_what_is_fixed_is_exact_in_half_precision_too(single):
    images, seen = torch.rand(1, 3, 128, 128), []
    hook = single.network.lateral[1].register_forward_pre_hook(lambda _, given: seen.append(given))
    with hook:
        single.pyramid(images, (2,))
        with torch.autocast("cpu", torch.bfloat16):
            single.pyramid(images, (2,))
    (exact,), (half,) = seen
    torch.testing.assert_close(half, exact, rtol=0, atol=0)


def test_without_norms_it_is_the_same_function(learned):
    images = torch.rand(2, 3, 160, 160)
    with torch.no_grad():
        for found, wanted in zip(fold(learned)(images), learned(images), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


def test_a_network_without_norms_cannot_be_folded_again(learned):
    with pytest.raises(ValueError, match="only a unit with a norm"):
        fold(fold(learned))


def test_what_it_sees_moves_with_the_image(encoder):
    # Its coarsest cells are of 64 px, and see some 600 px around them.
    torch.manual_seed(1)
    image = torch.rand(1, 3, 1344, 256)
    here, there = (
        encoder.pyramid(part, (2,))[0] for part in (image[:, :, 64:], image[:, :, :1280])
    )
    moved, unmoved = (
        (here[:, :, 36:40] - there[:, :, at : at + 4]).abs().mean() for at in (40, 36)
    )
    assert moved < 0.01 * unmoved


def test_a_tile_that_is_no_multiple_of_64_keeps_its_cells_in_place(encoder):
    torch.manual_seed(2)
    image = torch.rand(1, 3, 256, 256)
    image[:, :, 224:], image[:, :, :, 224:] = 0.9, 0.9
    whole, cut = encoder.pyramid(image, (2,))[0], encoder.pyramid(image[:, :, :224, :224], (2,))[0]
    # Only what is near the cut differs; stretched cells would differ everywhere.
    apart = (whole[:, :, :14, :14] - cut).abs().mean(1)[0]
    assert apart[:3, :3].mean() < 0.5 * apart[11:, 11:].mean()


def test_known_words_lie_where_their_tissue_does_and_others_by_their_letters(encoder):
    rows = encoder.embed_text(["Adipose", "fat cells", "Stroma", "qwertz", "qwertz", "asdf"])
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(6))
    assert rows[0] @ rows[1] > 0.999
    assert rows[0] @ rows[2] < 0.9
    assert rows[3] @ rows[4] > 0.999 > rows[3] @ rows[5]


def test_embeddings_of_images_are_unit_rows_and_carry_gradients_where_asked(encoder):
    images = torch.rand(2, 3, 128, 128)
    rows = encoder.embed_image(images)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(2))
    mean, std = (torch.tensor(v)[:, None, None] for v in (encoder.region_mean, encoder.region_std))
    normal = ((images - mean) / std).requires_grad_()
    again = encoder.embed_normalized(normal)
    torch.testing.assert_close(again, rows, rtol=1e-3, atol=1e-4)
    again.sum().backward()
    assert normal.grad.abs().sum() > 0


def test_it_ships_small(single):
    shipped = Path(module.__file__).with_name(f"{single.name}.safetensors")
    assert shipped.stat().st_size < 4_000_000
    assert single.weights is None
    assert not any(p.requires_grad for p in single.parameters())


def test_a_file_of_ones_own_is_named_by_its_hash(tmp_path, learned):
    words, note = {"cartilage": 0}, {"licence": "mine"}
    data = pack_encoder(fold(learned), torch.zeros(128), torch.eye(1, 128), words, note)
    path = tmp_path / "own.safetensors"
    path.write_bytes(data)
    name = "small" if isinstance(learned, SmallNetwork) else "lite"
    own = load_encoder(name, weights=path)
    assert own.identity == f"{name}-{own.weights.sha256[:16]}"
    torch.testing.assert_close(own.embed_text(["hyaline cartilage"]), torch.eye(1, 128))
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        rounded = fold(learned)
        for parameter in rounded.parameters():
            parameter.copy_(parameter.half().float())
        wanted = rounded(images)[2]
    torch.testing.assert_close(own.pyramid(images)[2], wanted)


@pytest.mark.parametrize("name", ["small", "lite"])
@pytest.mark.parametrize("kind", ["text", "other", "part"])
def test_other_files_are_refused_by_name(tmp_path, name, kind):
    path = tmp_path / "wrong.safetensors"
    if kind == "text":
        path.write_text("not tensors")
    elif kind == "other":
        save_file({"a": torch.zeros(1)}, path)
    else:
        state = {"centre": torch.zeros(128), "texts": torch.eye(1, 128)}
        save_file(state, path, {"words": "{}"})
    with pytest.raises(
        CheckpointError, match=r"wrong\.safetensors: (holds no weights|does not fit)"
    ):
        load_encoder(name, weights=path)


def test_an_ensemble_has_the_maps_of_both_side_by_side():
    images, both = torch.rand(1, 3, 128, 128), EnsembleEncoder()
    members = [LiteEncoder(), SmallEncoder()]
    each = [member.pyramid(images) for member in members]
    fixed, *joined = both.pyramid(images)
    torch.testing.assert_close(fixed, each[0][0], rtol=0, atol=0)
    for level, found in enumerate(joined, 1):
        parts = found.split([member.level_channels[level] for member in members], 1)
        for part, maps in zip(parts, each, strict=True):
            torch.testing.assert_close(part, maps[level], rtol=0, atol=0)
    assert both.weights is None
    assert not any(p.requires_grad for p in both.parameters())


@pytest.fixture
def own(tmp_path):
    """A folder with weights of both, which are those that ship but for a note."""
    for make in (LiteEncoder, SmallEncoder):
        shipped = make()
        data = pack_encoder(
            shipped.network, shipped.centre, shipped.texts, shipped.words, {"note": "mine"}
        )
        (tmp_path / f"{make.name}.safetensors").write_bytes(data)
    return tmp_path


def test_an_ensemble_of_a_folder_is_named_by_both_files(own):
    both = load_encoder("ensemble", weights=own)
    assert both.weights.source == "lite.safetensors, small.safetensors"
    known = {both.identity, EnsembleEncoder().identity}
    for name in ("lite", "small"):
        changed = own / f"{name}.safetensors"
        data = changed.read_bytes()
        changed.write_bytes(data.replace(b'"mine"', b'"ours"'))
        known.add(load_encoder("ensemble", weights=own).identity)
    assert len(known) == 4


def test_an_ensemble_needs_the_folder_and_both_files(own):
    with pytest.raises(CheckpointError, match=r"lite\.safetensors: give the folder that holds"):
        load_encoder("ensemble", weights=own / "lite.safetensors")
    (own / "small.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"does not hold small\.safetensors"):
        load_encoder("ensemble", weights=own)
