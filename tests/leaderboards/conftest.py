"""Records as a run would make them, in one line each."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest

from leaderboards.results import Identity, Record

ORDINARY = Identity(
    model="deo",
    variant="swin",
    weights="0123456789abcdef" * 4,
    card_revision=1,
    mode="ms",
    dataset="m-eurosat",
    dataset_version="v1",
    split_digest="s1",
    task="linear_probe",
    protocol="clean",
    switches={"linear_probe.batch": 64, "linear_probe.standardise": "train"},
    train_fraction="1.00x",
    draw=0,
    seed=0,
    limit=None,
    precision="fp32",
)


@pytest.fixture
def identity() -> Identity:
    return ORDINARY


@pytest.fixture
def record() -> Callable[..., Record]:
    """`record(0.9, model="dinov2")`: an ok run of that accuracy, with fields of the identity or the record changed."""

    def make(accuracy: float = 0.5, label: str = "", given: str | None = None, **changes: Any) -> Record:
        of_identity = {field.name: changes.pop(field.name) for field in fields(Identity) if field.name in changes}
        plain = Record(
            identity=replace(ORDINARY, **of_identity),
            status="ok",
            metrics={"accuracy": accuracy},
            primary="accuracy",
            modality="ms",
            provenance={"label": label, "given": label if given is None else given, "seconds": 1.5, "warnings": []},
        )
        return replace(plain, **changes)

    return make
