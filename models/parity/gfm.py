"""GFM's kit: sizes and windows, the outputs of layers after merging, resized position bias tables."""

from collections.abc import Mapping

from torch import Tensor, nn

from models.common.backbone import Backbone, Batch, channels_last_to_first
from models.networks.gfm import Gfm, resize_table
from models.parity import Run


def prepare(model: Backbone, batch: Batch, args: Mapping[str, object]) -> Batch:
    """Build for the window that the case names, or let the image choose it."""
    assert isinstance(model, Gfm)
    window = args.get("window", 0)
    model.set_window(window if isinstance(window, int) else 0)
    return batch


def _size(model: Backbone, batch: Batch, value: object) -> bool:
    """True if the image has this side, or these two."""
    sides = [value, value] if isinstance(value, int) else value
    return list(batch.images["optical"].shape[2:]) == sides


def _windows(model: Backbone, batch: Batch) -> list[tuple[int, int]]:
    assert isinstance(model, Gfm)
    return list(model.windows(*batch.images["optical"].shape[2:]))


def _resized(model: Backbone, batch: Batch, value: object) -> bool:
    """True if it is said wherever a stage needs tables of another window (equal ones stay as they are when resized)."""
    assert isinstance(model, Gfm)
    return bool(value) or not any(window != model.trained_window for window, _ in _windows(model, batch))


ARGUMENTS = {
    "img_size": _size,
    "window": lambda model, batch, value: isinstance(model, Gfm) and model.given_window == value,
    "rel_pos_table_resized_by_official_remap": _resized,
    "windows_per_stage": lambda model, batch, value: [window for window, _ in _windows(model, batch)] == value,
    "shift_of_block1_per_stage": lambda model, batch, value: [shift for _, shift in _windows(model, batch)] == value,
}


def recorded(model: Backbone) -> dict[str, nn.Module]:
    """The patch mergings, which end the authors' layers."""
    return {f"layer{number}_out": model.get_submodule(f"layers.{number - 1}.downsample") for number in (1, 2, 3)}


def arrays(model: Backbone, run: Run) -> dict[str, Tensor]:
    """Layer outputs as maps, the normed last map, vectors, and every table of the case, without the factors that came later."""
    found = {name: channels_last_to_first(output) for name, output in run.outputs.items()}
    found |= {f"raw{number}": stage for number, stage in enumerate(run.stages, 1)}
    found["layer4_out"] = run.stages[3]
    found["stage4_normed"] = channels_last_to_first(model.get_submodule("norm")(run.stages[3].permute(0, 2, 3, 1)))
    found["mean_normed"] = run.vectors["mean"]
    found["mean_raw"] = found["pooled_raw"] = run.vectors["raw"]
    windows = [window for window, _ in _windows(model, run.batch)]
    for key, table in run.state.items():
        if key.endswith("relative_position_bias_table"):
            window = windows[int(key.split(".")[1])]
            found[f"table/{key}"] = resize_table(table / run.case.late.get(key, 1.0), window)
    return found
