"""Training fractions: GEO-Bench's own partitions by the name they have on disk."""

from typing import ClassVar

import pytest

from models.common.errors import UserError
from tasks.common.low_data import fraction_name, train_names


class Partitioned:
    """As much of a data set as a fraction needs."""

    class card:
        name = "toy"

    splits: ClassVar = {"train": ("a", "b", "c", "d")}

    def partitions(self) -> dict[str, tuple[str, ...]]:
        return {"0.50x_train": ("d", "a"), "1.00x_train": ("a", "b", "c", "d")}


@pytest.mark.parametrize(("text", "name"), [("0.1", "0.10x"), ("0.10x", "0.10x"), ("1", "1.00x"), ("1.00", "1.00x")])
def test_a_fraction_has_one_name_however_it_is_written(text: str, name: str):
    assert fraction_name(text) == name


@pytest.mark.parametrize("text", ["0", "1.01", "-0.5", "half", "", "nan"])
def test_what_is_no_fraction_is_refused(text: str):
    with pytest.raises(UserError, match="--train-fraction"):
        fraction_name(text)


def test_the_partition_of_the_data_set_is_taken_as_it_stands():
    assert train_names(Partitioned(), "0.50x") == ("d", "a")  # type: ignore[arg-type]
    assert train_names(Partitioned(), "1.00x") == ("a", "b", "c", "d")  # type: ignore[arg-type]


def test_a_partition_that_is_not_there_is_named_beside_those_that_are():
    with pytest.raises(UserError, match=r"'0.05x_train'; it has 0.50x_train, 1.00x_train"):
        train_names(Partitioned(), "0.05x")  # type: ignore[arg-type]
