"""The sections of a recipe and what each field may hold. The rules between fields are in `rules`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from olmoe_ft.constants import BalanceOver, Scope, Tokens
from olmoe_ft.recipe.paths import with_paths
from olmoe_ft.recipe.rules import broken_rules, stage_of
from olmoe_ft.recipe.training_rules import without_absent
from olmoe_ft.recipe.yaml_file import dump_yaml
from olmoe_ft.shipped import shipped_name
from olmoe_ft.stages import STAGES, Stage

Text = Annotated[str, Field(min_length=1)]
if TYPE_CHECKING:  # names that the stages give
    StageName: TypeAlias = str
    Format: TypeAlias = str
else:
    StageName = Literal[*STAGES, "pipeline"]
    Format = Literal[*dict.fromkeys(format for stage in STAGES.values() for format in stage.formats)]
Long = Literal["drop", "keep_start", "keep_end"]
Attention = Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"]

STAGE_NAMES = (
    ", ".join(f"{stage.title} ({stage.name})" for stage in STAGES.values()).capitalize()
    + ", or several stages one after the other (pipeline)."
)

# Only a pipeline lacks the sections that every stage must have, and only its stages are run. Typed Any, so that code
ABSENT: Any = None


class Section(BaseModel):
    """No unknown keys, no conversions ("1" is not a number, true is not 1; a whole number is a number), no changes.

    A null counts as absent: it removes a value that an extended file has set.
    """

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {key: value for key, value in values.items() if value is not None or key not in cls.model_fields}


class Model(Section):
    """The network to start from: exactly one of `path` and `config`."""

    path: Text | None = None
    """Checkpoint folder, run directory or Hub name."""
    config: Text | None = None
    """JSON file that describes a network, which then starts from random weights."""
    tokenizer: Text | None = None
    """Folder or Hub name of the tokenizer. Required with `config`; otherwise the default is the one at `path`."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Data type of the weights in memory, by torch's name."""
    quantization: Literal["nf4"] | None = None
    """Keep the frozen weights of attention and experts in 4 bits, under the adapters (QLoRA). Needs a GPU."""
    attn_implementation: Attention = "sdpa"
    """Attention back end, by transformers' name."""


class Router(Section):
    """The router's part of the objective. It has no default: published recipes disagree, so each recipe must choose."""

    load_balancing_coef: float = Field(ge=0)
    """Weight of the load balancing loss, which is 1.0 for a balanced router. Pretraining used 0.01."""
    z_loss_coef: float = Field(ge=0)
    """Weight of the router z-loss. Pretraining used 0.001."""
    scope: Scope = "layer"
    """Balance each layer by itself (as in pretraining), or all layers pooled (as transformers does)."""
    tokens: Tokens = "non_padding"
    """Which tokens count in both losses and in the statistics: all but padding, all, or only those of the answers."""
    balance_over: BalanceOver = "micro_batch"
    """Which tokens are balanced together: those of one process's micro-batch, of the current micro-batches of all
    processes (`ranks`), or of all micro-batches so far in the optimizer step (`accumulation`)."""
    train: Literal["full", "frozen", "lora"]
    """The router's own weights: `full` trains them, `frozen` leaves them alone, `lora` trains adapters on them."""


class Lora(Section):
    """Low-rank adapters, from PEFT. Without this section all weights are trained."""

    r: int = Field(ge=1)
    """Rank of the factors."""
    alpha: float = Field(gt=0)
    """The update is scaled by alpha / r, or alpha / sqrt(r) with `use_rslora`."""
    attention: bool
    """Put adapters on the four projections of every attention layer."""
    experts: bool
    """Put adapters on the weights of every expert."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Probability of dropping an adapter's input. Must be 0 with adapters on experts or on the router."""
    use_rslora: bool = False
    """Scale by alpha / sqrt(r), which keeps the size of updates about the same for every rank."""
    init_lora_weights: bool | Literal["gaussian", "orthogonal"] = True
    """Initial values of the factors, by PEFT's names. With true (PEFT's default) and gaussian, B is 0, so training
    starts from the base model; with false it starts elsewhere. orthogonal works on attention only."""

    @field_validator("init_lora_weights", mode="before")
    @classmethod
    def _known_initialisation(cls, value: object) -> object:
        if not isinstance(value, bool) and value not in ("gaussian", "orthogonal"):
            allowed = (
                "true, false, gaussian, orthogonal; PEFT's others change the base weights or need a pass over the data"
            )
            raise PydanticCustomError("expected", allowed)
        return value


class Source(Section):
    """Rows to train or evaluate on."""

    path: Text
    """File (.jsonl, .json, .csv, each also as .gz; .parquet), folder or Hub name."""
    weight: float = Field(1.0, gt=0, le=1)
    """Share of the rows to use. They are drawn once, by the seed: 0.2 is the same fifth of the rows in every epoch."""
    repeat: int = Field(1, ge=1)
    """How often each drawn row is used in an epoch."""
    max_rows: int | None = Field(None, ge=1)
    """Read only this many rows from the start of the source; `weight` then draws from these."""
    format: Format | None = None
    """Format of the rows. By default it is recognised from their keys."""
    columns: Mapping[str, Text] = Field(default_factory=dict)
    """Keys to rename before a row is read, from the name in the file to the name of the format: `{query: prompt}`."""
    ignore: tuple[Text, ...] = Field((), strict=False)
    """Keys of rows, turns and content parts to leave out, although they could be part of the example:
    `[images, label]`. A key like that is an error unless it is listed here."""
    split: Text = "train"
    """Split of a folder or Hub dataset."""
    config: Text | None = None
    """Configuration of a folder or Hub dataset that has several."""
    revision: Text | None = None
    """Branch, tag or commit of a Hub dataset."""

    @field_validator("columns")
    @classmethod
    def _one_name_each(cls, columns: Mapping[str, str]) -> Mapping[str, str]:
        if len(set(columns.values())) < len(columns):
            raise PydanticCustomError("expected", "a different new name for each column; rename one of them")
        return columns


class Benchmark(Section):
    """Questions that should not appear in the training rows."""

    path: Text
    """File, folder or Hub name."""
    columns: Mapping[str, Text] = Field(default_factory=dict)
    """Keys to rename before a row is read. The question is taken from the first of these keys that is filled:
    `question`, `prompt`, `problem`, `query`, `instruction`, `input`, `messages`, `conversations`, `turns`, `text`."""
    split: Text | None = None
    """Split of a folder or Hub dataset, by default test."""
    config: Text | None = None
    """Configuration of a Hub dataset that has several."""
    revision: Text | None = None
    """Branch, tag or commit of a Hub dataset."""

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value


class Answers(Section):
    """Held-out prompts with known answers. The model answers them greedily, before and after training."""

    path: Text
    """File of rows, each with a prompt and an `answer`."""
    max_new_tokens: int = Field(64, ge=1)
    """Maximum length of a completion, in tokens."""
    batch_size: int = Field(128, ge=1)
    """Prompts that each process answers at once."""
    limit: int | None = Field(None, ge=1)
    """Use only this many prompts from the start of the file."""


class Data(Section):
    """The rows that the stage learns from and is measured on."""

    train: tuple[Source, ...] = Field(strict=False)
    """Sources that are mixed for training, at least one."""
    eval: tuple[Source, ...] = Field((), strict=False)
    """Sources for the evaluation loss."""
    answers: Answers | None = None
    """Held-out prompts; the model's answers are compared with the known ones."""
    learn: Literal["all_answers", "last_answer", "completion"] = "all_answers"
    """Which assistant turns stage sft learns: all of them, the last one of each row, or only those in `completion` (or
    Alpaca's `output`) and none in the prompt. Plain texts are learned whole."""
    turn_marks: Literal["refuse", "obey"] = "refuse"
    """Marks on single turns (`train`, `trainable`, `loss`, `loss_mask`, `weight`, `loss_weight`; 0, 1, true or false):
    `refuse` a mark that would leave an answer out, or `obey` it. Marks choose among the turns that `learn` selects."""
    max_prompt_length: int | None = Field(None, ge=1)
    """Prompt tokens to keep in a row longer than `training.max_length`. The default with `long_prompts: keep_end` is as
    many as the answer leaves room for; otherwise as many as fit into `max_length`. A row within `training.max_length`
    is never cut."""
    long_prompts: Long = "keep_start"
    """What to do with a prompt that is too long: keep its start, keep its end (and the BOS), or drop the row. The
    prompt is everything before the last answer that is learned."""
    long_answers: Long = "keep_start"
    """What to do with an answer that then still does not fit: keep its start (and lose the EOS), keep its end, or drop
    the row."""
    malformed: Literal["stop", "drop"] = "stop"
    """What to do with a row that cannot be read: stop, or drop the row and count it."""
    max_dropped: float = Field(0.01, ge=0, le=1)
    """Largest share of a source's rows that may be dropped, because they are malformed or have no token to learn. Above
    it the run stops."""
    decontaminate_against: tuple[Benchmark, ...] = Field((), strict=False)
    """Benchmarks to look for in the training rows: paths or Hub names, or `{path: …, split: …}`."""
    decontaminate: bool = False
    """Leave out rows that contain a held-out prompt (of `eval`, `answers` or `decontaminate_against`): 13 words in a
    row, or the whole of a shorter prompt. They are reported either way."""
    cache: Text | None = None
    """Folder that keeps the rows once they are read and tokenized; `olmoe-ft prepare` fills it. By default it is beside
    the cache of the `datasets` library."""


class Tracking(Section):
    """Where the records go, besides `metrics.jsonl`."""

    wandb: Literal["auto", "online", "offline", "off"] = "auto"
    """Weights & Biases: `auto` is online if there is a key and the server answers, otherwise offline. The environment
    variables WANDB_MODE and WANDB_DISABLED can switch it off."""
    project: Text = "olmoe_ft"
    """Name of the W&B project."""

    @field_validator("wandb", mode="before")
    @classmethod
    def _bare_off(cls, value: object) -> object:
        return "off" if value is False else value  # YAML 1.1 reads a bare `off` as false


class Recipe(Section):
    """One run, fully checked: a single stage, or the stages of a pipeline in order."""

    name: Text
    """Name of the run directory `runs/<name>/`: letters, digits, `.`, `_`, `-`. A pipeline names the runs of its
    stages by itself."""
    stage: StageName = Field(description=STAGE_NAMES)
    model: Model = ABSENT
    """The network to start from."""
    data: Data = ABSENT
    """What the stage learns from."""
    router: Router = ABSENT
    """The router's part of the objective."""
    lora: Lora | None = None
    """Adapters. Without them all weights are trained."""
    training: Mapping[str, Any] = Field(default_factory=dict)
    """Arguments of the trainer, by the names of TRL's configuration of the stage, such as `SFTConfig`."""
    tracking: Tracking = Tracking()
    """Where the records go."""
    stages: tuple["Recipe", ...] = Field((), strict=False)
    """The stages of a pipeline, in order. Only a pipeline has them."""

    @field_validator("training")
    @classmethod
    def _without_absent(cls, training: Mapping[str, Any], info: ValidationInfo) -> Mapping[str, Any]:
        stage = stage_of(info.data)
        return training if stage is None else without_absent(stage, training)

    @model_validator(mode="after")
    def _keeps_the_rules(self) -> "Recipe":
        broken = [f"{key}: {text}" for key, text in broken_rules(self.model_dump(exclude_none=True))]
        if broken:
            raise PydanticCustomError("rules", "{broken}", {"broken": "; ".join(broken)})
        return self

    @property
    def kind(self) -> Stage:
        """What its stage is: `olmoe_ft/stages/`. A pipeline has none."""
        return STAGES[self.stage]

    @property
    def runs(self) -> tuple["Recipe", ...]:
        """What is run, in order: the stages of a pipeline, or the recipe itself."""
        return self.stages or (self,)

    @property
    def run_dir(self) -> Path:
        """The run directory, relative to the working directory."""
        return Path("runs") / self.name

    def to_yaml(self) -> str:
        """The resolved recipe, with all defaults filled in; `load_recipe` reads it back to an equal one.

        Files that come with the package are written by name, so that it does not matter where it is installed.
        """
        return dump_yaml(self._written())

    def _written(self) -> dict[str, Any]:
        if self.stages:
            return {"name": self.name, "stage": self.stage, "stages": [stage._written() for stage in self.stages]}
        values = self.model_dump(mode="json", exclude={"stages", "training"}, exclude_none=True)
        values = with_paths(values, lambda _, path: shipped_name(path))
        return values | {"training": dict(self.training)}  # where null is a value: `max_length: null` truncates nothing
