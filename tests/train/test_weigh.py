import numpy as np
import torch

from wsiseg.config import TrainConfig
from wsiseg.train.features import Seen
from wsiseg.train.setup import make_model
from wsiseg.train.step import Trainer
from wsiseg.train.weigh import balance_of, weigh_labels

NAN = float("nan")


def test_plain_labels_need_no_weights():
    labels = np.array([[1, 0], [0, 1]], np.float32)
    assert weigh_labels(labels, np.ones(2, np.float32), balance=False) is None


def test_unknown_counts_nothing_and_corrections_more():
    labels = np.array([[1, NAN], [0, 1]], np.float32)
    found = weigh_labels(labels, np.array([1, 3], np.float32), balance=False)
    np.testing.assert_allclose(found, np.array([[1, 0], [3, 3]]) * 4 / 7, rtol=1e-6)


def test_a_rare_answer_counts_more_but_not_without_end():
    labels = np.zeros((1000, 3), np.float32)
    labels[:100, 0] = labels[0, 1] = 1
    labels[:, 2] = 1
    found = balance_of(labels, np.ones(1000, np.float32))
    np.testing.assert_allclose(found[0], [np.sqrt(1000 / 1800), np.sqrt(5)])
    assert found[1, 1] == 5
    assert found[2].tolist() == [1, 1], "no tile is without it: there is nothing to balance"


def test_an_unknown_label_teaches_nothing():
    """The loss of a batch is the same whatever stands in the place of what nobody knows."""
    config = TrainConfig(classes=("A", "B"), contrast_weight=0, struct_weight=0, device="cpu")
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    losses = []
    for unknown in (0.0, 1.0):
        model = make_model(config)
        seen = Seen(images, dict(enumerate(model.encoder.pyramid(images))), {})
        labels = torch.tensor([[1.0, unknown], [0.0, 1.0]])
        trainer = Trainer(model, config, 4)
        losses.append(trainer.losses(seen, labels, weights).total.item())
        plain = trainer.losses(seen, labels).total.item()
        assert plain != losses[-1]
    assert losses[0] == losses[1]


def test_cells_that_nobody_labelled_teach_nothing():
    """A window that is known in part has the loss and gradient of that part of its CAM."""
    config = TrainConfig(classes=("A", "B"), contrast_weight=0, struct_weight=0, device="cpu")
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    model = make_model(config)
    pyramid = dict(enumerate(model.encoder.pyramid(images)))
    level = model.encoder.cam_level
    known = torch.zeros(1, 8, 8, dtype=torch.bool)
    known[:, :, :4] = True
    trainer, labels = Trainer(model, config, 4), torch.tensor([[1.0, 0.0]])
    features = pyramid[level].clone().requires_grad_()
    trainer.model.eval()  # batch statistics would join the cells
    trainer.losses(Seen(images, {level: features}, {}, known), labels).total.backward()
    reached = features.grad.abs().sum(1)[0] > 0
    half = reached.shape[1] // 2
    assert reached[:, :half].all()
    assert not reached[:, half + 1 :].any(), "but for the adapter's kernel of three cells"
