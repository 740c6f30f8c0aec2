"""TensorBoard's folder, read back by TensorBoard itself."""

from pathlib import Path

from harness.pretraining.events import EventFile


def read(folder: Path) -> dict[str, list[tuple[int, float, float]]]:
    """Step, wall time and value of every scalar, by tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return {
        tag: [(event.step, event.wall_time, event.value) for event in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
    }


def test_scalars_come_back_with_their_step_and_time(tmp_path: Path):
    file = EventFile(tmp_path / "events")
    file.add(11.5, 300, {"loss": -0.25, "probe/accuracy": 0.5})
    file.add(12.5, 301, {"loss": -0.5})
    assert read(tmp_path / "events") == {
        "loss": [(300, 11.5, -0.25), (301, 12.5, -0.5)],
        "probe/accuracy": [(300, 11.5, 0.5)],
    }


def test_a_training_that_goes_on_writes_every_step_once(tmp_path: Path):
    EventFile(tmp_path / "events").add(1.0, 1, {"loss": 3.0})
    again = EventFile(tmp_path / "events")
    again.add(1.0, 1, {"loss": 3.0})
    again.add(2.0, 2, {"loss": 2.0})
    assert [step for step, _, _ in read(tmp_path / "events")["loss"]] == [1, 2]
