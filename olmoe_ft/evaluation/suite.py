"""The suite `olmoe`: the columns of OLMoE's table of adapted models, each as a task of lm-eval.

The table is in Muennighoff et al. 2024 (arXiv:2409.02060); how its values were measured is in the authors' script
`scripts/adapteval.sh` (github.com/allenai/OLMoE at 357454f), which calls the `eval/` of open-instruct
(github.com/allenai/open-instruct, read at 579df2d of 9 September 2024). docs/evaluation.md has both side by side.

The questions and the metric of a column are lm-eval's. A file in `tasks/olmoe/` replaces keys of lm-eval's task where
that is enough to follow the script; stock lm-eval reads these files too. What still differs is in `departure`.
"""

from dataclasses import dataclass
from pathlib import Path

TASKS = Path(__file__).parent / "tasks" / "olmoe"
"""For `include_path` of lm-eval's `TaskManager`, or `--include_path` of its command line."""


def pass_at_10(references: list[str], predictions: list[list[str]]) -> dict[str, float]:
    """The chance that one of 10 programs is right, estimated without bias from all of a question's programs.

    n programs of which c are right give 1 - C(n - c, 10) / C(n, 10) (Chen et al. 2021, arXiv:2107.03374, eq. 1). This
    runs the programs, by the `code_eval` of Hugging Face's `evaluate`, as lm-eval does for pass@1.

    Args:
        references: the question's tests.
        predictions: its programs.
    """
    from lm_eval.tasks.humaneval.utils import pass_at_k

    return pass_at_k(references, predictions, k=[10])


@dataclass(frozen=True)
class Column:
    """A column of the paper's table, and how it is measured here."""

    name: str
    title: str
    """As in the paper."""
    task: str
    """The task or group of lm-eval that has the score, or the name of a judged set (judged.py)."""
    metric: str
    """As `Score.metric` names it."""
    shots: int
    protocol: str
    """How the paper measured it."""
    departure: str
    """How the measurement here differs."""
    chat: bool = True
    """Whether the questions are put through the chat template, worked examples in the same user turn."""
    runs_code: bool = False
    """Whether it runs programs that the model has written."""
    judged: bool = False
    """Whether another model has to judge the outputs."""
    max_new_tokens: int | None = None
    """Of a judged column."""

    @property
    def group(self) -> str:
        """What lm-eval loads: the group in `tasks/olmoe/` that holds `task`."""
        assert not self.judged, self.name
        return f"olmoe_{self.name}"

    def why_missing(self) -> str:
        """What to do about an evaluation without this column."""
        if self.judged:
            return "needs a judge; docs/evaluation.md says how"
        if self.runs_code:
            return "runs programs that the model has written; allow it with --allow-code, in a container"
        return f"not measured; name it in --tasks as {self.group}"


SUITE = (
    Column(
        name="mmlu",
        title="MMLU",
        task="mmlu",
        metric="acc",
        shots=0,
        protocol="0-shot, the likeliest of the four letters after `The answer is:`, mean over questions",
        departure="lm-eval puts the line that names the subject into the system turn; the paper begins the user turn "
        "with it",
    ),
    Column(
        name="gsm8k",
        title="GSM8k",
        task="gsm8k_cot",
        metric="exact_match/flexible-extract",
        shots=8,
        protocol="8-shot chain of thought (the examples of Wei et al. 2022), greedy, 512 new tokens, the last number",
        departure="taken from all 1,319 questions, the paper drew 200; worked as `Q:` and `A:`, where the paper writes "
        "`Question:` and `Answer:` and begins the model's turn with `Answer:`",
    ),
    Column(
        name="bbh",
        title="BBH",
        task="bbh_cot_fewshot",
        metric="exact_match/get-answer",
        shots=3,
        protocol="3-shot chain of thought, greedy, 512 new tokens, the text from `the answer is` to the next full "
        "stop, mean over 27 tasks",
        departure="taken from all 6,511 questions, each weighted alike, the paper drew 40 a task; the instruction is "
        "the system turn, the question ends in `Let's think step by step.`, upper and lower case and punctuation count",
    ),
    Column(
        name="humaneval",
        title="HumanEval",
        task="humaneval",
        metric="pass@10/create_test",
        shots=0,
        protocol="0-shot, pass@10 from 20 samples at temperature 0.8 and top-p 0.95, 512 new tokens, no chat template",
        departure="none known; samples are drawn with other random numbers",
        chat=False,
        runs_code=True,
    ),
    Column(
        name="alpaca_eval",
        title="AlpacaEval 1.0",
        task="alpaca_eval",
        metric="win_rate",
        shots=0,
        protocol="0-shot, greedy, up to 8,192 new tokens, the share of wins over text-davinci-003 by GPT-4",
        departure="outputs end where the network's positions end",
        judged=True,
        max_new_tokens=8192,
    ),
    Column(
        name="xstest",
        title="XSTest",
        task="xstest",
        metric="f1",
        shots=0,
        protocol="0-shot, greedy, 2,048 new tokens, F1 of refusals as GPT-4 (0613) sees them, where unsafe prompts "
        "should be refused",
        departure="none known, with the same judge",
        judged=True,
        max_new_tokens=2048,
    ),
    Column(
        name="ifeval",
        title="IFEval",
        task="ifeval",
        metric="prompt_level_loose_acc",
        shots=0,
        protocol="0-shot, greedy, 2,048 new tokens, the share of prompts with every instruction followed, loosely "
        "checked",
        departure="the checks are lm-eval's copy of the same code",
    ),
)
