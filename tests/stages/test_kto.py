"""KTO: which answers its estimate is made of, the loss that the planner takes, and what is counted in its rows."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset

from olmoe_ft.data.audit import Audit
from olmoe_ft.data.findings import findings_of_evaluation
from olmoe_ft.data.length import Length
from olmoe_ft.data.mixture import hash_of
from olmoe_ft.data.tokens import Tokens
from olmoe_ft.recipe import RecipeError
from olmoe_ft.stages import STAGES, Tally
from olmoe_ft.stages.kto import _row
from olmoe_ft.stages.kto_estimate import before_with_another, with_answers_to_others

KTO = STAGES["kto"]
TALLIES = (
    "good answers",
    "bad answers",
    "rows of the commonest prompt",
    "prompts with both",
    "answers judged both good and bad",
)
NONE = (Tally(1, 9), Tally(0, 1), Tally(0, 1))  # of the last three


def test_the_row_before_with_another_prompt_by_hand():
    """Prompts a a b a: behind the first row is the last one, which has a too, so both a's take the b before that."""
    assert before_with_another(np.array([7, 7, 8, 7])).tolist() == [2, 2, 1, 2]
    assert before_with_another(np.array([7, 8, 9])).tolist() == [2, 0, 1]


@pytest.mark.parametrize("prompts", [[7], [7, 7, 7]])
def test_one_prompt_alone_is_refused(prompts):
    found = "there is one row" if len(prompts) == 1 else f"all {len(prompts)} rows have the same prompt"
    with pytest.raises(RecipeError, match=f"{found}; .*apo_zero_unpaired"):
        before_with_another(np.array(prompts))


@pytest.mark.parametrize("seed", range(5))
def test_no_row_gets_an_answer_to_its_own_prompt(seed):
    prompts = np.random.default_rng(seed).integers(0, 4, size=50)
    before = before_with_another(prompts)
    assert (prompts[before] != prompts).all()
    for row, found in enumerate(before):  # and all between have the row's own prompt
        between = [(row - step) % 50 for step in range(1, (row - found) % 50)]
        assert all(prompts[one] == prompts[row] for one in between)


def test_answers_are_joined_beside_their_rows(tmp_path):
    rows = Dataset.from_dict({
        "prompt_ids": [[1], [1], [2], [1]], "completion_ids": [[5], [6], [7, 7], [8]], "label": [True, False] * 2,
        "prompt_hash": [3, 3, 4, 3],
    })  # fmt: skip
    joined = with_answers_to_others(rows.select([3, 2, 1, 0]), cache_file_name=str(tmp_path / "joined.arrow"))
    assert joined["completion_ids"] == [[8], [7, 7], [6], [5]]
    assert joined["KL_completion_ids"] == [[7, 7], [8], [7, 7], [7, 7]]


def test_loss_by_hand():
    """The planner's: beta 0.5, log-ratios 0 and 2, so 1 - 1/2 and 1 - 0.731059: their mean times the weight of 2."""

    class Arguments:
        beta, desirable_weight = 0.5, 2.0

    policy, reference = torch.tensor([[-1.0, -1.0], [-1.0, 0.0]]), torch.tensor([[-1.0, -1.0], [-1.0, -2.0]])
    loss = KTO.scored_loss(policy, reference, Arguments())
    torch.testing.assert_close(loss, torch.tensor(0.768941), rtol=0, atol=1e-6)


def test_tallies_and_weights_by_hand():
    """Two good answers and three bad ones: prompt 1 has both, and one of its answers is judged both ways.

    2 x 1 / (3 x 1) = 0.667 is below 1; lambda_D of 1.5 to 2.25 balances them, or lambda_U of 0.444 to 0.667.
    """
    rows = Dataset.from_dict({
        "prompt_ids": [[1], [1], [1], [2], [3]],
        "completion_ids": [[5], [5], [6], [7], [8]],
        "label": [True, False, False, True, False],
        "prompt_hash": [1, 1, 1, 2, 3],
    })  # fmt: skip
    tallies = KTO.tallies(rows)
    assert tuple(tallies) == TALLIES
    # of rows, rows, rows, prompts, different answers
    assert list(tallies.values()) == [(2, 5), (3, 5), (3, 5), (1, 3), (1, 4)]
    assert [str(tally) for tally in tallies.values()] == ["2 (40%)", "3 (60%)", "3 (60%)", "1 (33%)", "1 (25%)"]
    balance, common, torn = KTO.advice(tallies, {})
    assert common.startswith("rows of the commonest prompt: 3 (60%); the loss kto estimates")
    assert len([*KTO.advice(tallies | {"rows of the commonest prompt": Tally(5, 10)}, {})]) == 2
    assert [*KTO.advice(tallies, {"loss_type": "apo_zero_unpaired"})] == [balance, torn]  # it has no KL term
    assert "weigh 0.667 times as much" in balance
    assert "desirable_weight to 1.5 … 2.25, or training.undesirable_weight to 0.445 … 0.666" in balance
    assert torn.startswith("answers judged both good and bad: 1; ")
    for weights in ({"desirable_weight": 1.5}, {"desirable_weight": 2.25}, {"undesirable_weight": 0.45}):
        assert len([*KTO.advice(tallies, weights)]) == 2
    [alone, *_] = KTO.advice(tallies | {"bad answers": Tally(0, 2)}, {})
    assert "2 good answers and 0 bad answers" in alone


def test_the_weights_that_are_advised_are_right_when_they_are_typed_in():
    """Both ends of both ranges, of a hundred mixtures from one good answer in 10,000 to 10,000 in one."""
    random = np.random.default_rng(1)
    for good, bad in (10 ** random.uniform(0, 4, size=(100, 2))).astype(int).tolist():
        tallies = dict(zip(TALLIES, (Tally(good, good + bad), Tally(bad, good + bad), *NONE), strict=True))
        for sentence in KTO.advice(tallies, {}):
            for name, *ends in re.findall(r"training\.(\w+) to (\S+) … ([^ ,]+)", sentence):
                ratios = [(good / bad) * float(end) ** (1 if name == "desirable_weight" else -1) for end in ends]
                assert all(1 - 1e-12 <= ratio <= 1.5 + 1e-12 for ratio in ratios), sentence
                assert not [one for end in ends for one in KTO.advice(tallies, {name: float(end)})], sentence


@pytest.mark.parametrize(("good", "told"), [(994, True), (996, False), (1504, False), (1506, True)])
def test_a_balance_that_looks_right_in_two_decimals_is_right(good, told):
    """0.994 is shown as it is; 1.504, which three digits show as 1.5, is told by nobody."""
    tallies = dict(zip(TALLIES, (Tally(good, 2000), Tally(1000, 2000), *NONE), strict=True))
    assert bool([*KTO.advice(tallies, {})]) is told


def test_metrics_that_an_evaluation_of_one_kind_lacks():
    tallies = dict(zip(TALLIES, (Tally(4, 4), Tally(0, 4), *NONE), strict=True))
    rejected = ["rewards/rejected", "logps/rejected", "logits/rejected"]
    assert [*KTO.unmeasured(tallies, {})] == [*rejected, "rewards/margins"]
    assert set(KTO.unmeasured(tallies, {}).values()) == {"no bad answers"}
    both = dict(zip(TALLIES, (Tally(3, 4), Tally(1, 4), *NONE), strict=True))
    assert KTO.unmeasured(both, {}) == {}
    assert [*KTO.unmeasured(both, {"loss_type": "apo_zero_unpaired"})] == ["kl"]
    [found] = findings_of_evaluation(Audit([], {}, tallies=tallies), SimpleNamespace(stage=KTO, training={}))
    assert found == (
        "the evaluation has no bad answers, so it does not measure " + ", ".join([*rejected, "rewards/margins"])
    )


@pytest.mark.parametrize(
    ("prompts", "prompt", "answer"),
    [("keep_start", [0, 1, 2, 3, 4, 5], [6, 7]), ("keep_end", [0, 3, 4, 5], [6, 7, 8, 9])],
)
def test_a_row_that_is_cut(prompts, prompt, answer):
    """Six tokens of prompt and four of answer in eight places. By keep_end the answer takes its four, and the prompt
    keeps its BOS and its last three. Of an answer of one token the prompt stays whole: it is the same prompt still.
    """
    whole = Tokens([*range(10)], [-100] * 6 + [6, 7, 8, 9], 6, 10)
    short = Tokens([0, 0, 2, 3, 4, 5, 6], [-100] * 6 + [6], 6, 7)
    row, other = (_row(one, Length(8, None, prompts), 0) for one in (whole, replace(whole, input_ids=[*range(7)])))
    assert (row["prompt_ids"], row["completion_ids"]) == (prompt, answer)
    assert (row["cut_prompt"], row["cut_answer"], row["supervised"]) == (6 - len(prompt), 4 - len(answer), len(answer))
    assert other["prompt_ids"] == [0, 1, 2, 3, 4, 5] and other["prompt_hash"] == row["prompt_hash"]
    different = _row(short, Length(8, None, prompts), 0)
    assert different["prompt_hash"] != row["prompt_hash"] and (different["double_bos"], row["double_bos"]) == (
        True,
        False,
    )


def test_a_row_of_which_no_answer_is_left():
    row = _row(Tokens([*range(10)], [-100] * 6 + [6, 7, 8, 9], 6, 10), Length(6), 0)
    assert row["dropped"] and "prompt_ids" not in row


def test_hashes_know_where_a_list_ends():
    assert hash_of([1], [2, 3]) != hash_of([1, 2], [3]) and hash_of([1], [2]) == hash_of([1], [2])
