"""The sections of a recipe and what each field may hold. What fields say about each other is in `rules`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from olmoe_ft.recipe.paths import with_paths
from olmoe_ft.recipe.rules import broken_rules, stage_of
from olmoe_ft.recipe.training_rules import without_absent
from olmoe_ft.recipe.yaml_file import dump_yaml
from olmoe_ft.shipped import shipped_name

Text = Annotated[str, Field(min_length=1)]
Format = Literal["messages", "prompt_completion", "alpaca", "sharegpt", "text", "preference"]
Long = Literal["drop", "keep_start", "keep_end"]
Attention = Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"]

# Only a pipeline lacks the sections that every stage must have, and only its stages are run. Typed Any, so that code
# that runs a stage need not ask whether its model is there.
ABSENT: Any = None


class Section(BaseModel):
    """No unknown keys, no conversions (a text is no number, true is no 1; a whole number is a number), no changes.

    A null is as if it were not written: it takes away what a file below has set.
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
    """Model JSON whose network starts from random weights."""
    tokenizer: Text | None = None
    """Folder or Hub name of the tokenizer; needed beside `config`, otherwise by default the one at `path`."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Type of the weights in memory, by torch's name."""
    quantization: Literal["nf4"] | None = None
    """Keep the frozen weights of attention and experts in 4 bit under the adapters; on a GPU."""
    attn_implementation: Attention = "sdpa"
    """Attention back end, by transformers' name."""


class Router(Section):
    """The router's part of the objective. Never defaulted: published recipes disagree, so each says what it wants."""

    load_balancing_coef: float = Field(ge=0)
    """Weight of the load balancing loss, which is 1.0 at balance; pretraining used 0.01."""
    z_loss_coef: float = Field(ge=0)
    """Weight of the router z-loss; pretraining used 0.001."""
    scope: Literal["layer", "pooled"] = "layer"
    """Balance every layer (as in pretraining), or all layers pooled (as transformers does)."""
    tokens: Literal["non_padding", "all", "completion"] = "non_padding"
    """Which tokens count in both losses and the statistics: all but padding, all, or those of the answers."""
    balance_over: Literal["micro_batch", "ranks", "accumulation"] = "micro_batch"
    """Whose tokens are to be balanced together: a process's micro-batch, the micro-batches that all processes work on
    at once, or those and the ones before them in the optimizer step."""
    train: Literal["full", "frozen", "lora"]
    """The router's own weights: `full` trains them, `frozen` leaves them alone, `lora` adapts them."""


class Lora(Section):
    """Low-rank adapters, by PEFT. Without this section all weights are trained."""

    r: int = Field(ge=1)
    """Rank of the factors."""
    alpha: float = Field(gt=0)
    """The update is scaled by alpha / r, or alpha / sqrt(r) with `use_rslora`."""
    attention: bool
    """Adapt the four projections of every attention layer."""
    experts: bool
    """Adapt the weights of every expert."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Probability of dropping an adapter's input; 0 with experts or an adapted router."""
    use_rslora: bool = False
    """Scale by alpha / sqrt(r), which keeps updates alike over ranks."""
    init_lora_weights: bool | Literal["gaussian", "orthogonal"] = True
    """First values of the factors, by PEFT's names; true is PEFT's default and gaussian another, both with B at 0, so
    that training starts from the base; false starts elsewhere; orthogonal is for attention alone."""

    @field_validator("init_lora_weights", mode="before")
    @classmethod
    def _known_initialisation(cls, value: object) -> object:
        if not isinstance(value, bool) and value not in ("gaussian", "orthogonal"):
            allowed = "true, false, gaussian, orthogonal; PEFT's others change the base weights or need a run over data"
            raise PydanticCustomError("expected", allowed)
        return value


class Source(Section):
    """Rows to train or evaluate on."""

    path: Text
    """File (.jsonl, .json, .csv, each also as .gz; .parquet), folder or Hub name."""
    weight: float = Field(1.0, gt=0, le=1)
    """Share of its rows drawn for every epoch, by the seed and before training: 0.2 is the same fifth in each epoch."""
    repeat: int = Field(1, ge=1)
    """How often each drawn row stands in an epoch."""
    max_rows: int | None = Field(None, ge=1)
    """Read only the first rows of the source; `weight` then draws from these."""
    format: Format | None = None
    """How a row is read; by default recognised by its keys."""
    columns: Mapping[str, Text] = Field(default_factory=dict)
    """Keys to rename before a row is read, from the source's name to the format's: `{query: prompt}`."""
    ignore: tuple[Text, ...] = Field((), strict=False)
    """Keys of its rows, turns and content parts to leave unread, although they could carry a part of the example:
    `[images, label]`. Without it such a key is an error."""
    split: Text = "train"
    """Split of a folder or Hub data set."""
    config: Text | None = None
    """Configuration of a folder or Hub data set that has several."""
    revision: Text | None = None
    """Branch, tag or commit of a Hub data set."""

    @field_validator("columns")
    @classmethod
    def _one_name_each(cls, columns: Mapping[str, str]) -> Mapping[str, str]:
        if len(set(columns.values())) < len(columns):
            raise PydanticCustomError("expected", "a name of its own for each column")
        return columns


class Benchmark(Section):
    """Questions that should not stand in training."""

    path: Text
    """File, folder or Hub name."""
    columns: Mapping[str, Text] = Field(default_factory=dict)
    """Keys to rename before a row is read; a question stands in `question`, `prompt`, `problem`, `query`,
    `instruction`, `input`, `messages`, `conversations`, `turns` or `text`, the first that is filled."""
    split: Text | None = None
    """Split of a folder or Hub data set, by default test."""
    config: Text | None = None
    """Configuration of a Hub data set that has several."""
    revision: Text | None = None
    """Branch, tag or commit of a Hub data set."""

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value


class Answers(Section):
    """Held-out prompts with checkable answers, generated greedily before and after training."""

    path: Text
    """File of rows with a prompt and an `answer`."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest completion, in tokens."""
    batch_size: int = Field(128, ge=1)
    """Prompts generated at once by each process."""
    limit: int | None = Field(None, ge=1)
    """Use only the first prompts of the file."""


class Data(Section):
    """What the stage learns from and is measured on."""

    train: tuple[Source, ...] = Field(strict=False)
    """Sources that are mixed for training; at least one."""
    eval: tuple[Source, ...] = Field((), strict=False)
    """Sources of the evaluation loss."""
    answers: Answers | None = None
    """Held-out prompts whose answers are generated and compared."""
    learn: Literal["all_answers", "last_answer", "completion"] = "all_answers"
    """Which assistant turns stage sft learns: all of them, the last of each row, or those of `completion` (or Alpaca's
    `output`) but none in the prompt. Plain texts are learned whole."""
    turn_marks: Literal["refuse", "obey"] = "refuse"
    """Marks of single turns (`train`, `trainable`, `loss`, `loss_mask`, `weight`, `loss_weight`; 0, 1, true or false):
    refuse one that would leave an answer out, or obey it. They choose among what `learn` leaves."""
    max_prompt_length: int | None = Field(None, ge=1)
    """Tokens that stay of a prompt in a row longer than `training.max_length`. By default, with `long_prompts:
    keep_end`, as many as the answer leaves; otherwise as many as fit into `max_length`. A row within
    `training.max_length` is never cut."""
    long_prompts: Long = "keep_start"
    """What becomes of such a prompt: keep its start, keep its end (and the BOS), or drop the row. The prompt is all
    before the last answer that is learned."""
    long_answers: Long = "keep_start"
    """What becomes of an answer that then does not fit: keep its start (and lose the EOS), keep its end, or drop the
    row."""
    malformed: Literal["stop", "drop"] = "stop"
    """At a row that cannot be read: stop, or leave it out and count it."""
    max_dropped: float = Field(0.01, ge=0, le=1)
    """Largest share of a source's rows that may be lost, malformed or left without a supervised token; above it the run
    stops."""
    decontaminate_against: tuple[Benchmark, ...] = Field((), strict=False)
    """Benchmarks whose questions are looked for in the training rows: paths or Hub names, or `{path: …, split: …}`."""
    decontaminate: bool = False
    """Leave out rows in which a held-out prompt stands (of `eval`, `answers` or `decontaminate_against`; 13 words in a
    row, or a whole short prompt). They are reported either way."""
    cache: Text | None = None
    """Folder where rows are kept once they are read and tokenized, by content; `olmoe-ft prepare` fills it. By default
    beside the data sets that the `datasets` library keeps."""


class Tracking(Section):
    """Where the records go beside `metrics.jsonl`."""

    wandb: Literal["auto", "online", "offline", "off"] = "auto"
    """Weights & Biases: `auto` is online where a key is found and the server answers, otherwise offline. WANDB_MODE and
    WANDB_DISABLED can switch off what this switches on."""
    project: Text = "olmoe_ft"
    """Name of the W&B project."""

    @field_validator("wandb", mode="before")
    @classmethod
    def _bare_off(cls, value: object) -> object:
        return "off" if value is False else value  # YAML 1.1 reads a bare `off` as false


class Recipe(Section):
    """One run, fully checked: a single stage, or the stages of a pipeline in order."""

    name: Text
    """Name of the run directory `runs/<name>/`: letters, digits, `.`, `_`, `-`. A pipeline names its stages."""
    stage: Literal["sft", "dpo", "pipeline"]
    """Supervised fine-tuning, direct preference optimisation, or several stages one after the other."""
    model: Model = ABSENT
    """The network to start from."""
    data: Data = ABSENT
    """What the stage learns from."""
    router: Router = ABSENT
    """The router's part of the objective."""
    lora: Lora | None = None
    """Adapters; without them all weights are trained."""
    training: Mapping[str, Any] = Field(default_factory=dict)
    """Arguments of the trainer, by the names of TRL's `SFTConfig` or `DPOConfig`."""
    tracking: Tracking = Tracking()
    """Where the records go."""
    stages: tuple["Recipe", ...] = Field((), strict=False)
    """The stages of a pipeline, in order; no other recipe has any."""

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
    def run_dir(self) -> Path:
        """The run directory, relative to the working directory."""
        return Path("runs") / self.name

    @property
    def runs(self) -> tuple["Recipe", ...]:
        """The recipes that are trained, in order: the stages of a pipeline, else this one."""
        return self.stages or (self,)

    def to_yaml(self) -> str:
        """The resolved recipe, all defaults filled in; `load_recipe` reads it back to an equal one.

        Files that come with the package have their names, wherever it is installed.
        """
        return dump_yaml(self._written())

    def _written(self) -> dict[str, Any]:
        if self.stages:
            return {"name": self.name, "stage": self.stage, "stages": [stage._written() for stage in self.stages]}
        values = self.model_dump(mode="json", exclude={"stages", "training"}, exclude_none=True)
        values = with_paths(values, lambda _, path: shipped_name(path))
        return values | {"training": dict(self.training)}  # where null is a value: `max_length: null` truncates nothing
