"""A trainer's callbacks come in the one order that is written down."""

import pytest
from support.training_cases import Case

from olmoe_ft.training.callback_order import ORDER, check_order
from olmoe_ft.training.optimizer.moved import MovedCallback
from olmoe_ft.training.performance import PerformanceCallback
from olmoe_ft.training.progress import ProgressBar


@pytest.mark.parametrize("case", [Case(), Case(stage="dpo", form="lora")], ids=["sft", "dpo with adapters"])
def test_a_trainer_has_them_in_order(make_trainer, case):
    """And one more that is added too late is found."""
    trainer = make_trainer(case)
    callbacks = trainer.callback_handler.callbacks
    check_order(callbacks)
    known = [type(callback) for callback in callbacks if type(callback) in ORDER]
    assert {PerformanceCallback, MovedCallback, ProgressBar} <= {*known}
    trainer.add_callback(trainer.pop_callback(PerformanceCallback))  # now behind those that show and write records
    with pytest.raises(AssertionError, match="out of order: .*'ProgressBar', 'PerformanceCallback'"):
        check_order(trainer.callback_handler.callbacks)
