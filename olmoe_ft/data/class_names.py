"""Columns of numbers that each mean a name (`ClassLabel` of the `datasets` library): the names, as rows are read.

What 0 and 1 mean there is up to whoever wrote the names: of `[good, bad]` 0 is good.
"""

import json
from collections.abc import Mapping
from typing import Any

METADATA = b"huggingface"  # the key of the schema of a .parquet file that `datasets` wrote


class ClassNames:
    """The names in a dataset's columns.

    Args:
        features: of each column, as `Features.to_dict` gives them.
    """

    def __init__(self, features: Mapping[str, Any]) -> None:
        self._columns = {name: feature for name, feature in features.items() if _has_names(feature)}

    def given_in(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row with names in place of their numbers."""
        return row | {name: _named(row[name], feature) for name, feature in self._columns.items() if name in row}


def names_of_schema(metadata: Mapping[bytes, bytes] | None) -> ClassNames:
    """The names in the columns of a .parquet file, by the metadata of its schema.

    Raises:
        ValueError: the metadata are no JSON.
    """
    features: Any = json.loads((metadata or {}).get(METADATA, b"{}"))
    for key in ("info", "features"):
        features = features.get(key) if isinstance(features, dict) else None
    return ClassNames(features if isinstance(features, dict) else {})


def _has_names(feature: Any) -> bool:
    if isinstance(feature, Mapping):
        return feature.get("_type") == "ClassLabel" or any(_has_names(inner) for inner in feature.values())
    return isinstance(feature, list) and any(_has_names(inner) for inner in feature)


def _named(value: Any, feature: Any) -> Any:
    """A value with names for numbers at any depth; -1 is none, as `datasets` writes it."""
    if isinstance(value, list):
        return [_named(one, feature) for one in value]
    while isinstance(feature, list) or (isinstance(feature.get("_type"), str) and "feature" in feature):
        feature = feature[0] if isinstance(feature, list) else feature["feature"]  # of a list: that of its items
    if isinstance(value, dict):
        return {key: _named(one, feature.get(key, {})) for key, one in value.items()}
    if feature.get("_type") != "ClassLabel" or not isinstance(value, int):
        return value
    if value == -1:
        return None
    names = feature.get("names") or []
    return names[value] if 0 <= value < len(names) else value
