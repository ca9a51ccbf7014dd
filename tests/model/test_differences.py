"""The paper's text and its released code differ in 28 points, and one
claim holds in neither: which test holds each of them."""

import ast
import hashlib
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F

from tests.model.test_construct import PROMPTS, FakeEncoder
from wsiseg.config import TrainConfig, load_config
from wsiseg.model.construct import ConStruct

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent

HERE = "model/test_differences.py"
CONSTRUCT, LOSSES = "model/test_construct.py", "model/test_losses.py"
CONTRAST, PROTOCOLS = "train/test_contrast.py", "evaluate/test_protocols.py"
FORWARD = "model/encoders/test_construct_golden.py"
INFERENCE = "model/encoders/test_evaluation_golden.py"
UNITS, CONCH = "evaluate/test_golden_units.py", "model/encoders/test_conch.py"

DIFFERENCES = {
    "1 text projection": f"{HERE}::test_only_the_paper_projects_its_prototypes",
    "2 prompts": f"{HERE}::test_the_config_holds_the_released_prompts",
    "3 normalised prototypes": f"{CONSTRUCT}::test_adaptive_layer_gives_unit_rows",
    "4 n_ratio": f"{CONSTRUCT}::test_adaptive_layer_gives_unit_rows",
    "5 gradient of the contrast": f"{CONTRAST}::test_the_released_loss_teaches_nothing",
    "5 and in the paper": f"{CONTRAST}::test_the_papers_gradient_agrees_with_finite_differences",
    "6 anchors": f"{FORWARD}::test_three_steps_equal_the_released_code",
    "7 background prototypes": f"{LOSSES}::test_contrast_loss_sets_own_class_against_all_others",
    "8 threshold": f"{LOSSES}::test_region_masks_reach_half_of_the_images_strongest",
    "8 and in the paper": f"{CONTRAST}::test_the_papers_threshold_is_each_classes_own",
    "9 regions": f"{FORWARD}::test_regions_equal_the_released_code",
    "10 mask refinement": f"{INFERENCE}::test_six_augmentations_and_what_follows",
    "11 true labels": f"{PROTOCOLS}::test_oracle_never_finds_a_class_that_is_not_true",
    "11 and without": f"{PROTOCOLS}::test_deploy_does_not_look_at_the_truth",
    "12 fusion": "model/test_cam.py::test_six_maps_by_hand",
    "13 brightness": "model/test_cam.py::test_six_augmentations_by_hand",
    "14 input statistics": f"{CONCH}::test_the_trunk_ends_in_the_released_codes_norm",
    "15 resolution": f"{CONCH}::test_position_embedding_is_the_mean_of_four_at_half_the_size",
    "16 strides": "model/encoders/test_segformer.py::test_stages_equal_the_released_codes",
    "16 teacher's mode": "model/encoders/test_segformer.py::test_the_teacher_never_trains",
    "17 skip connection": f"{CONSTRUCT}::test_an_adapter_begins_as_the_identity",
    "18 resize": f"{CONCH}::test_the_pyramid_equals_the_released_codes",
    "19 layer index": "model/encoders/test_vit.py::test_taps_end_each_quarter",
    "20 idle layers": f"{CONTRAST}::test_what_learns_is_what_gradients_reach",
    "21 parameters": f"{CONTRAST}::test_parameter_counts",
    "22 temperature": f"{LOSSES}::test_infonce_equals_the_formula",
    "23 schedule": "model/test_reference.py::test_learning_rate",
    "23 turns": "train/test_features.py::test_the_released_code_flips_each_way_and_then_may_turn",
    "24 background": "evaluate/test_scores.py::test_scores_by_hand",
    "25 CRF": f"{UNITS}::test_the_crf_of_the_library",
    "25 its image": f"{UNITS}::test_the_truncated_image_to_the_last_value",
    "26 final model": "train/test_resume.py::test_the_best_epoch_is_kept_beside_the_last",
    "27 file names": "model/test_released.py::test_comes_back_under_our_names",
    "28 several prototypes": f"{CONSTRUCT}::test_several_prototypes_of_a_class_part",
    "29 distillation": "train/test_setup.py::test_in_paper_and_code_distillation_changes_no_cam",
}


@cache
def functions_in(file: str) -> set[str]:
    tree = ast.parse((TESTS / file).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_difference_has_a_test():
    assert {int(name.split()[0]) for name in DIFFERENCES} == set(range(1, 30))
    gone = [
        t for t in DIFFERENCES.values() if t.split("::")[1] not in functions_in(t.split("::")[0])
    ]
    assert gone == []


def make(preset):
    torch.manual_seed(0)
    return ConStruct(FakeEncoder(), PROMPTS, preset=preset)


def test_only_the_paper_projects_its_prototypes():
    for preset in ("reference", "wsiseg"):
        assert make(preset).text_projection is None
        torch.testing.assert_close(make(preset).bank, make(preset).prototypes)
    model = make("paper")
    first, second = model.text_projection.fc1, model.text_projection.fc2
    by_hand = F.normalize(second(F.relu(first(model.prototypes))), dim=1)
    torch.testing.assert_close(model.bank, by_hand)
    assert first.out_features == model.encoder.embedding_dim // 2
    assert not torch.allclose(model.bank, model.prototypes)


def test_the_config_holds_the_released_prompts():
    """With the abbreviations that Table 1 does not have, and curly quotes."""
    prompts = load_config(ROOT / "configs" / "bcss.yaml", TrainConfig).prompts
    for prompt, short in zip(prompts, ("TUM", "STR", "LYM", "NEC"), strict=True):
        assert prompt.split()[1] == f"({short})"
    assert "“ghost”" in prompts[3]
    digest = hashlib.sha256("\n".join(prompts).encode()).hexdigest()
    assert digest == RELEASED_PROMPTS


RELEASED_PROMPTS = "b3c149bb6791ee0981222c5deade68668b234b815c3f48cf18bb71d6530c45a2"
