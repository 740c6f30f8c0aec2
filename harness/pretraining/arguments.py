"""The flags of `pretrain`. Nothing heavy is imported: `--help` answers at once."""

from argparse import RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any

EXAMPLES = """examples:
  python -m harness pretrain deo --preset base-ms --data path/to/eurosat_ms --steps 20 --out OUT
  python -m harness pretrain deo --data fmow-sentinel fmow-rgb --teacher-weights dinov3.pth --out OUT --plan
  torchrun --nproc-per-node 4 -m harness pretrain xstars --data MSC-France --launcher pytorch --out OUT
then: python -m harness run --model deo --weights OUT/deo.pth --suite demo
"""


def add_pretrain(verbs: Any) -> None:
    """Add the verb to the subparsers of the command line."""
    verb = verbs.add_parser(
        "pretrain",
        help="build DEO or X-STARS from images",
        epilog=EXAMPLES,
        formatter_class=RawDescriptionHelpFormatter,
    )
    verb.add_argument("method", choices=("deo", "xstars"))
    verb.add_argument("--data", action="extend", nargs="+", required=True, metavar="PATH", help="images; may repeat")
    verb.add_argument(
        "--out", type=Path, help="folder of checkpoint, curve and provenance; the same command goes on there"
    )
    verb.add_argument("--plan", action="store_true", help="print recipe, schedules, memory, time; start nothing")

    learnt = verb.add_argument_group("what is learnt")
    learnt.add_argument("--preset", help="deo: a row of the ablation ladder; xstars: a row of the paper's tables")
    learnt.add_argument("--recipe", default="paper", choices=("paper", "released"), help="where the two differ")
    learnt.add_argument("--scale", choices=("main", "ablation", "small"), help="deo: which student and views")
    learnt.add_argument(
        "--set", dest="switches", action="append", default=[], metavar="SWITCH=VALUE", help="change one switch"
    )
    learnt.add_argument("--teacher", help="deo: dinov3 | dinov3:sat | dinov2 | radio | none")
    learnt.add_argument("--teacher-weights", metavar="PATH", help="deo: the optical teacher's checkpoint")
    learnt.add_argument("--init", metavar="MODEL[:variant]", help="xstars: start from this adapter's weights")
    learnt.add_argument("--init-weights", default="official", metavar="PATH", help="official | random | PATH")
    learnt.add_argument("--pairing", default="cycle", choices=("cycle", "exact"), help="fMoW-RGB with fMoW-Sentinel")
    learnt.add_argument("--rgb-share", type=float, default=0.3, help="samples that keep their fMoW-RGB (paper: 0.3)")
    learnt.add_argument("--seed", type=int, default=0)

    long = verb.add_argument_group("how long, in which parts")
    long.add_argument("--steps", type=int, help="instead of the recipe's epochs; the warm-up shrinks with it")
    long.add_argument("--epochs", type=int)
    long.add_argument("--batch", type=int, help="images of one step, over all processes (default: the recipe's)")
    long.add_argument("--accumulate", type=int, default=1, help="parts that a process computes its share in")
    long.add_argument("--save-every", type=int, default=0, metavar="STEPS")
    long.add_argument(
        "--probe", default="demo-eurosat", metavar="DATASET", help="k-NN while it trains: a data set or none"
    )
    long.add_argument("--probe-every", type=int, default=0, metavar="STEPS")

    where = verb.add_argument_group("where it runs")
    where.add_argument("--device", default="auto", help="auto | cpu | cuda[:N]")
    where.add_argument("--precision", help="fp32 | bf16 | fp16 (default: the recipe's; fp32 without a GPU)")
    where.add_argument("--workers", type=int, default=2, help="processes that read images and make views")
    where.add_argument("--augment-on", default="workers", choices=("workers", "device"), help="where views are made")
    where.add_argument("--launcher", default="none", choices=("none", "pytorch", "slurm"))
    where.add_argument("--json", action="store_true", help="the summary as JSON on the last line")
    where.add_argument("-q", "--quiet", action="store_true", help="no progress")
