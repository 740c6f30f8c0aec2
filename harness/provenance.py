"""Where a number came from: commit, versions, device, memory. Never part of a run's identity."""

import platform
import resource
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "timm", "numpy", "geobench", "h5py", "rasterio", "scipy")


@cache
def commit() -> str:
    """The commit of this checkout, with `+` appended where tracked files differ from it; `unknown` outside git."""
    root = Path(__file__).resolve().parents[1]
    try:
        head = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run(
            ["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages whose numbers these are."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def machine(device: str) -> dict[str, Any]:
    """Commit, versions, device name and peak memory (MB; of the GPU where one computes)."""
    import torch

    if device.startswith("cuda"):
        name, peak = torch.cuda.get_device_name(device), torch.cuda.max_memory_allocated(device) / 1e6
    else:
        name, peak = (
            platform.processor() or platform.machine(),
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        )
    return {
        "commit": commit(),
        "versions": versions(),
        "device": f"{device}: {name}",
        "threads": torch.get_num_threads(),
        "peak_memory_mb": round(peak, 1),
    }
