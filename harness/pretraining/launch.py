"""Which process is this, of how many, on which device: one alone, torchrun's, or Slurm's."""

import os
import subprocess
from typing import NamedTuple

import torch
from torch import distributed

from models.common.errors import UserError, choose

LAUNCHERS = ("none", "pytorch", "slurm")
PORT = "29500"


class Place(NamedTuple):
    """This process."""

    rank: int
    processes: int
    device: torch.device


def join(launcher: str, device: str) -> Place:
    """Meet the other processes (NCCL on GPUs, gloo on CPUs), each with a GPU of its own. Raises `UserError`.

    mmengine's own launchers want a GPU; with the process group made here its Runner takes what is there.
    """
    choose("launcher", launcher, LAUNCHERS)
    if launcher == "none":
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError(f"{os.environ['WORLD_SIZE']} processes were started: give --launcher pytorch with torchrun")
        return Place(0, 1, torch.device(device))
    if launcher == "slurm":
        _as_torchrun()
    missing = [name for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR") if name not in os.environ]
    if missing:
        raise UserError(
            f"--launcher {launcher} finds no {', '.join(missing)}: start with `torchrun --nproc-per-node N -m harness "
            "pretrain ...`, or in a Slurm step with --launcher slurm"
        )
    os.environ.setdefault(
        "MKL_NUM_THREADS", os.environ.setdefault("OMP_NUM_THREADS", "1")
    )  # before mmengine warns of it
    where = torch.device(device)
    if where.type == "cuda":
        where = torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        torch.cuda.set_device(where)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if where.type == "cuda" else "gloo")
    return Place(distributed.get_rank(), distributed.get_world_size(), where)


def _as_torchrun() -> None:
    """Say what Slurm says in torchrun's words. Raises `UserError` outside a Slurm step."""
    if "SLURM_PROCID" not in os.environ:
        raise UserError("--launcher slurm finds no SLURM_PROCID: start with `srun python -m harness pretrain ...`")
    os.environ["RANK"], os.environ["WORLD_SIZE"] = os.environ["SLURM_PROCID"], os.environ["SLURM_NTASKS"]
    os.environ["LOCAL_RANK"] = os.environ.get("SLURM_LOCALID", "0")
    os.environ.setdefault("MASTER_PORT", PORT)
    if "MASTER_ADDR" not in os.environ:
        command = ["scontrol", "show", "hostnames", os.environ.get("SLURM_JOB_NODELIST", "")]
        try:
            hosts = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        except (OSError, subprocess.CalledProcessError) as error:
            raise UserError("--launcher slurm cannot ask scontrol for the first host; set MASTER_ADDR") from error
        os.environ["MASTER_ADDR"] = hosts[0]
