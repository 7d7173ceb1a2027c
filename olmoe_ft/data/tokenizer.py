"""Load a tokenizer with OLMoE's conventions and a chat template that marks the assistant's turns."""

from pathlib import Path

from jinja2 import TemplateSyntaxError
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from olmoe_ft.data.rows import RowError
from olmoe_ft.data.template import CHAT_TEMPLATE, PROBE, Rendered, answer_endings, special_tokens, written
from olmoe_ft.hub import reach_hub, refusal, refuse_own_code
from olmoe_ft.reasons import one_line
from olmoe_ft.recipe import UserError


def load_tokenizer(path: str, vocab_size: int) -> PreTrainedTokenizerBase:
    """The tokenizer in `path` (a folder or a Hub name), ready for chat.

    Special tokens that a bare `tokenizer.json` does not name are set as in OLMoE's pretraining: pad `<|padding|>`, EOS
    and BOS `<|endoftext|>`. A template without `{% generation %}` marks is replaced by ours if both write the same
    text.

    Args:
        vocab_size: of the model; it may be larger than the tokenizer's, but not smaller.
    Raises:
        UserError: there is no tokenizer, pad equals EOS, it does not fit the model, or its template differs from
            OLMoE's and marks nothing.
    """
    tokenizer = _read(path)
    if not tokenizer.is_fast:
        raise UserError(
            f"{path}: found a slow tokenizer; allowed: a fast one with a tokenizer.json; convert it with transformers"
        )
    if tokenizer.eos_token is None:
        tokenizer.eos_token = "<|endoftext|>"
    if tokenizer.bos_token is None:
        tokenizer.bos_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        tokenizer.pad_token = "<|padding|>"
    for name in ("eos_token", "pad_token"):
        if (token := getattr(tokenizer, name)) not in tokenizer.get_vocab():
            raise UserError(
                f"{path}: the {name} {token!r} is not in the tokenizer's vocabulary; set another one in "
                "tokenizer_config.json"
            )
    if tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise UserError(
            f"{path}: pad and EOS are both {tokenizer.eos_token!r}, so EOS would never be learned; set "
            "another pad_token in tokenizer_config.json"
        )
    if len(tokenizer) > vocab_size:
        raise UserError(
            f"{path}: the tokenizer has {len(tokenizer)} tokens, but the model's vocab_size is {vocab_size}; "
            "use the model's own tokenizer or a larger vocabulary"
        )
    tokenizer.chat_template = _marked_template(tokenizer, path)
    tokenizer.backend_tokenizer.no_truncation()  # the file may ask for it, and then rows would lose their ends
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def has_chat_template(path: str) -> bool:
    """Whether the tokenizer in `path` brings a chat template, as those of base models do not.

    Raises:
        UserError: there is no tokenizer.
    """
    return _read(path).chat_template is not None


def _read(path: str) -> PreTrainedTokenizerBase:
    folder = Path(path)
    if not folder.exists():
        reach_hub(path, "tokenizer")
    try:
        if folder.is_dir() and not (folder / "tokenizer_config.json").exists():
            return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        refuse_own_code(path, "tokenizer_config.json", get_tokenizer_config(path))
        return AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except UserError:
        raise
    except Exception as error:  # the `tokenizers` library raises bare Exception on a file it cannot parse
        if not folder.exists():
            raise refusal(path, "tokenizer", error) from None
        raise UserError(
            f"{path}: no tokenizer can be loaded from this folder ({one_line(error)}); set model.tokenizer"
        ) from None


def _marked_template(tokenizer: PreTrainedTokenizerBase, path: str) -> str:
    own = tokenizer.chat_template
    if own is None:
        return CHAT_TEMPLATE
    if isinstance(own, dict):
        raise UserError(f"{path}: found several chat templates ({', '.join(own)}); keep only the one to train with")
    probed = _written(tokenizer, own, path)
    if probed is None or probed.answers:
        _check_marks(tokenizer, own, path)
        return own
    ours = _written(tokenizer, CHAT_TEMPLATE, path)
    if ours is not None and probed.text == ours.text:
        return CHAT_TEMPLATE
    raise UserError(
        f"{path}: its chat template has no {{% generation %}} marks, so the assistant's tokens cannot be found; "
        "add them around the assistant's text and EOS, or remove the template to use OLMoE's"
    )


def _check_marks(tokenizer: PreTrainedTokenizerBase, template: str, path: str) -> None:
    try:
        answer_endings(template, special_tokens(tokenizer))
    except RowError as error:
        raise UserError(
            f"{path}: its chat template {error}; put {{% generation %}} marks around each answer's text and its "
            "EOS, and nothing else, or remove the template to use OLMoE's"
        ) from None


def _written(tokenizer: PreTrainedTokenizerBase, template: str, path: str) -> Rendered | None:
    """What a template writes for the probe; None if it refuses such turns."""
    try:
        [found] = written([PROBE], template, special_tokens(tokenizer))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if isinstance(found, TemplateSyntaxError):
        raise UserError(
            f"{path}: its chat template is not valid Jinja (line {found.lineno}: {found.message}); correct it"
        )
    return found if isinstance(found, Rendered) else None
