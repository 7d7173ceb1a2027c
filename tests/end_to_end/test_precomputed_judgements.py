"""KTO with the reference's log-probabilities computed before training, on two processes."""

import json

import pytest
from support.launches import CONFIGS, SFT_START, SHORT, Run, launch


def test_kept_log_probabilities_train_as_a_reference_does(workspace):
    """Two processes under ZeRO-2, with kept log-probabilities of rows and of estimates, take the steps of one process
    that runs the reference in each.

    Before the first step every reward is 0.
    """
    file = workspace / "judgements.json"
    file.write_text(json.dumps({"extends": "recipes/tiny/kto.yaml", **SFT_START}))
    few = [*SHORT, "training.max_steps=3", "training.warmup_steps=0", "data.train.0.max_rows=100"]
    runs = {
        "one": ["training.gradient_accumulation_steps=2"],
        "zero2": ["training.precompute_ref_log_probs=true"],
    }
    records = []
    for shape, asked in runs.items():
        output = launch(workspace, CONFIGS[shape], file.name, f"name=judged-{shape}", *few, *asked)
        records.append(Run(workspace / "runs" / f"judged-{shape}", output).records)
    for expected, actual in zip(*records, strict=True):
        for name in ("loss", "loss/task", "kl", "grad_norm", "rewards/chosen", "rewards/margins", "logps/rejected"):
            assert actual[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-5), (expected["step"], name)
    first, *_, last = records[1]
    assert abs(first["rewards/chosen"]) < 1e-5 < abs(last["rewards/chosen"])
