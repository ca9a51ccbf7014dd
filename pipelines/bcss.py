"""Train on BCSS-WSSS, keep the best epoch of the validation set, score the test set, print it.

    python pipelines/bcss.py BCSS-WSSS out
    python pipelines/bcss.py BCSS-WSSS out --set encoder_options.weights=conch/pytorch_model.bin \\
        --set encoder_options.tokenizer=conch_byte_level_bpe_uncased.json

The data set holds train/, valid/ and test/ as its authors publish it. As in the released code, the
oracle protocol picks the epoch, and the printed scores are of the last one; see out/ for the best.
"""

import argparse
from pathlib import Path

from wsiseg.cli.options import override
from wsiseg.config import EvaluateConfig, TrainConfig, load_config, parse_config
from wsiseg.evaluate import (
    Evaluation,
    MaskScore,
    evaluate_checkpoint,
    format_comparison,
    format_table,
    load_masked_patches,
    load_published,
)
from wsiseg.train import load_patches, train_model

CONFIG = Path(__file__).parents[1] / "configs" / "bcss.yaml"
PUBLISHED = CONFIG.with_name("published_bcss.yaml")


def run(data: Path, out: Path, config: TrainConfig) -> tuple[Evaluation, ...]:
    """Train, evaluate the last epoch by both protocols, print the tables and the paper's scores."""
    patches = load_patches(data, config.classes)
    valid = MaskScore(load_masked_patches(data, config.classes, "valid"))
    checkpoint = out / "last.safetensors"
    train_model(patches, config, checkpoint, report, validate=valid)
    evaluations = evaluate_checkpoint(
        checkpoint, data, EvaluateConfig(encoder_options=config.encoder_options), out / "test"
    )
    for evaluation in evaluations:
        print(f"\n{format_table(evaluation)}")
    print(f"\n{format_comparison(evaluations[0], load_published(PUBLISHED))}")
    return evaluations


def report(step: str, done: int, total: int) -> None:
    """Print the progress of the training."""
    print(f"\r{step} {done}/{total}", end="", flush=True)


def configure(path: Path, settings: list[str]) -> TrainConfig:
    """Read the settings of a file, overridden by ``name=value``."""
    data = override(load_config(path, TrainConfig).model_dump(), settings, "--set")
    return parse_config(data, TrainConfig, "the command line")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    args = parser.parse_args()
    run(args.data, args.out, configure(args.config, args.set))
