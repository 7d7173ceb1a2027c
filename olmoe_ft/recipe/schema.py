"""The sections of a recipe and what each field may hold. The rules between fields are in `rules`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from olmoe_ft.constants import BalanceOver, Scope, Tokens
from olmoe_ft.recipe.data_section import Data
from olmoe_ft.recipe.evaluation_section import EvaluationSection
from olmoe_ft.recipe.paths import with_paths
from olmoe_ft.recipe.rules import broken_rules, stage_of
from olmoe_ft.recipe.section import Section, Text
from olmoe_ft.recipe.training_rules import without_absent
from olmoe_ft.recipe.yaml_file import dump_yaml
from olmoe_ft.shipped import shipped_name
from olmoe_ft.stages import STAGES, Stage

if TYPE_CHECKING:  # a name that the stages give
    StageName: TypeAlias = str
else:
    StageName = Literal[*STAGES, "pipeline"]
Attention = Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"]

_TITLES = ", ".join(f"{stage.title} ({stage.name})" for stage in STAGES.values())
STAGE_NAMES = f"{_TITLES[0].upper()}{_TITLES[1:]}, or several stages one after the other (pipeline)."

# Only a pipeline lacks the sections that every stage must have, and only its stages are run. Typed Any, so that code
# that runs a stage need not ask whether its model is there.
ABSENT: Any = None


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
    evaluation: EvaluationSection = Field(default_factory=lambda: EvaluationSection.model_validate({}))
    """Which tasks are put to the model, and when."""
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
