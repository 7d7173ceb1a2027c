"""Labels are scored wherever they are, and the collator says where."""

import torch
from support.networks import assert_close, scoring
from support.training_cases import Case

from olmoe_ft.training.scoring import label_places


def test_places_by_hand():
    """The first token is nobody's target: of 2 x 3 targets the second, and of the second row the first and the last."""
    labels = torch.tensor([[7, -100, 5, -100], [-100, 5, -100, 9]])
    assert label_places(labels).tolist() == [1, 3, 5]


def test_the_head_takes_the_places_it_is_told_and_finds_them_itself():
    model, ids = scoring(), torch.randint(3, 97, (2, 6))
    labels = torch.where(torch.rand(ids.shape) < 0.5, ids, -100)
    found = [model(ids, labels=labels, fused_lm_head=True, **more) for more in ({}, {"places": label_places(labels)})]
    logits = model(ids, places=label_places(labels)).logits  # without the head they are not looked at
    expected = logits[:, :-1].log_softmax(-1).gather(2, labels[:, 1:, None].clamp(min=0))[..., 0]
    for output in found:
        assert_close(output.log_probs, expected.where(labels[:, 1:] != -100, 0.0))


def test_the_trainers_collator_tells_them(make_trainer):
    """In the batches of training; so the head does not look for them."""
    trainer = make_trainer(Case())
    batch = next(iter(trainer.get_train_dataloader()))
    assert torch.equal(batch["places"], label_places(batch["labels"])) and batch["places"].numel() > 0
