"""A run's dataset as MLflow keeps it: an input for each of its splits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

__all__ = ["inputs"]

#: MLflow's limit in characters, and as much of a fingerprint as its tables can show.
_NAME_LENGTH, _DIGEST_LENGTH = 500, 12


def inputs(dataset: Mapping[str, Any]) -> list[DatasetInput]:
    """One a split: the context is the split's name, the profile says how many images (or pairs) each class has.

    MLflow keeps one dataset of each name and digest, so the digest is the fingerprint's start and the split's name.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"uri": dataset["root"]})
    made = []
    for split, counts in (dataset.get("counts") or {"train": {}}).items():
        digest = f"{dataset['fingerprint'][:_DIGEST_LENGTH]}-{split}"
        profile = json.dumps({"samples": sum(counts.values()), "classes": counts})
        entry = Dataset(str(dataset["name"])[:_NAME_LENGTH], digest, "local", source, profile=profile)
        made.append(DatasetInput(entry, [InputTag("mlflow.data.context", split)]))
    return made
