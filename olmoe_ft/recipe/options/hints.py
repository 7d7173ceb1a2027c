"""What to write instead of another tool's key, by the key's name and the section it was found in."""

from olmoe_ft.recipe.options.other_tools import DATA, LORA, LOSSES, MODEL, TARGETS, TRACKING, TRAINING, Group

# names that mean something only in one section
SOURCE = (
    Group("set `data.train.0.format` instead", "type formatting conversation ds_type file_type"),
    Group("set `data.train.0.config` instead", "name subset"),
    Group("set `data.train.0.path` instead", "data_files file file_name hf_hub_url script_url"),
    Group("set `data.train.0.weight` instead", "fraction ratio sampling_ratio probability sampling_weight"),
    Group("set `data.train.0.max_rows` instead", "limit max_samples"),
    Group(
        "set `data.train.0.columns` instead, from the row's name to the format's",
        "field field_messages field_instruction field_output field_system message_property_mappings message_field_role "
        "message_field_content tags text_column text_field field_human field_model",
    ),
)
PLACES: dict[str, tuple[Group, ...]] = {
    "": (*MODEL, *DATA, *LORA, *LOSSES, *TRAINING, *TRACKING),  # and everywhere
    "model": (Group("set `model.path` instead", "name name_or_path"),),
    "data": (Group("set `data.eval` instead", "validation test dev"), Group("set `data.train` instead", "sources")),
    "data.train": SOURCE,
    "data.eval": SOURCE,
    "training": (
        Group("set `model.dtype` instead", "dtype"),
        Group("set `model.attn_implementation` instead", "attn_implementation"),
        Group("add a `lora` section instead (without one all weights are trained)", "lora"),
        Group("set `lora.r` instead", "r"),
        Group("set `lora.alpha` instead", "alpha"),
        Group("set `router.load_balancing_coef` instead", "load_balancing_coef"),
    ),
    "router": (
        Group("set `router.train` instead", "freeze frozen trainable"),
        Group("set `router.scope` instead", "per_layer pooled"),
    ),
    "lora": (Group(f"set {TARGETS} and `lora.experts` instead", "target mlp layers"),),
    "tracking": (
        Group("set `tracking.wandb` instead", "mode enabled"),
        Group("the run is called by the recipe's `name`; remove it", "name"),
    ),
}
HINTS = {
    place: {name: group.text for group in groups for name in group.names.split()} for place, groups in PLACES.items()
}


def hint(place: str, name: str) -> str | None:
    """What to write instead of an unknown key in a section (`training`, `data.train`, ""), if another tool has it."""
    return HINTS.get(place, {}).get(name) or HINTS[""].get(name)
