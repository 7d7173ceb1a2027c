"""Exact match: generate greedily on held-out prompts whose answer a program can check."""

from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from olmoe_ft.checkpoints.folders import check_weights, load_config, resolve_checkpoint
from olmoe_ft.checkpoints.weights import load_whole
from olmoe_ft.data.template import prompts
from olmoe_ft.data.tokenizer import load_tokenizer
from olmoe_ft.evaluation.answered import Answered, Mark
from olmoe_ft.evaluation.questions import Question, load_questions
from olmoe_ft.model import OlmoeForCausalLM
from olmoe_ft.model.generate import complete
from olmoe_ft.recipe.data_section import Answers
from olmoe_ft.shipped import found


def evaluate(
    model: str, questions: str, *, max_new_tokens: int = 64, batch_size: int = 128, limit: int | None = None
) -> Answered:
    """Answered a model's greedy answers to held-out prompts.

    Args:
        model: a run directory or checkpoint folder, with or without adapter, or a Hub name.
        questions: file of rows with a prompt and an `answer`, as `data.answers.path` of a recipe; one that comes with
            olmoe_ft is found from anywhere.
        max_new_tokens: the longest answer, in tokens.
        batch_size: prompts generated at once by each process.
        limit: use only the first prompts of the file.
    Raises:
        UserError: there is no such model, or the file is missing, empty or malformed.
    """
    answers = Answers(path=found(questions), max_new_tokens=max_new_tokens, batch_size=batch_size, limit=limit)
    check_weights(folder := resolve_checkpoint(model))
    asked = load_questions(answers)
    tokenizer = load_tokenizer(folder, load_config(folder).vocab_size)
    return score_checkpoint(folder, "auto", tokenizer, asked, answers, "evaluating")


def score_checkpoint(
    checkpoint: str,
    dtype: str,
    tokenizer: PreTrainedTokenizerBase,
    questions: list[Question],
    answers: Answers,
    label: str,
) -> Answered:
    """The score of a checkpoint on disk, so that what is scored is what a user will load.

    Args:
        dtype: of its weights: "float32", "bfloat16", or "auto" for the checkpoint's own.
        label: of the progress bar.
    """
    model = load_whole(checkpoint, dtype).to(PartialState().device)
    return score(model, tokenizer, questions, answers, label)


def score(
    model: OlmoeForCausalLM, tokenizer: PreTrainedTokenizerBase, questions: list[Question], answers: Answers, label: str
) -> Answered:
    """The score of greedy generation; every process takes its share of the prompts, and all have the whole score."""
    state = PartialState()
    # similar lengths together: a batch costs what its longest prompt costs
    order = sorted(range(len(questions)), key=lambda index: len(questions[index].prompt[-1]["content"]))
    mine = order[state.process_index :: state.num_processes]
    batches = [mine[start : start + answers.batch_size] for start in range(0, len(mine), answers.batch_size)]
    model.eval()
    marks: list[tuple[str, Mark]] = []
    for batch in tqdm(batches, desc=label, disable=not state.is_main_process, leave=False):
        texts = prompts([questions[index].prompt for index in batch], tokenizer)
        completions = complete(model, tokenizer, texts, answers.max_new_tokens)
        for index, completion in zip(batch, completions, strict=True):
            marks.append((questions[index].skill, questions[index].mark(completion)))
    return Answered.of(gather_object(marks), [style for question in questions for style in question.frames])
