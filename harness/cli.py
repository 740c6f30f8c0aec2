"""The verbs of the command line, and the one handler for mistakes the caller can mend. Nothing heavy is imported here."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from harness.pretraining.arguments import add_pretrain
from leaderboards.results import JournalError
from models.common.errors import UserError, choose

EXAMPLES = """examples:
  python -m harness run --model deo --suite demo
  python -m harness run --model deo,dinov2 --suite geobench --data-root /data
  python -m harness run --model imagestats --dataset path/to/my.toml --set knn.distance=euclidean
  python -m harness plan --suite geobench --model all
  python -m harness list models
  python -m harness verify all --kits path/to/kits
"""


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake is one line with the nearest valid word."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see `{self.prog} --help`)")

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            choose("command" if action.dest in ("verb", "what") else action.dest, str(value), list(action.choices))

    def parse_args(self, args: Sequence[str] | None = None, namespace: None = None) -> argparse.Namespace:  # type: ignore[override]
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            verb = self.verbs[parsed.verb] if getattr(parsed, "verb", None) else self
            options = [option for action in verb._actions for option in action.option_strings]
            choose(f"option for `{verb.prog}`", unknown[0], options)
        return parsed

    verbs: dict[str, "Parser"]


def cache_folder() -> Path:
    """Where weights and data go unless told otherwise: $EO_HARNESS_CACHE, else the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("EO_HARNESS_CACHE") or Path(base) / "eo-harness")


def data_root() -> Path:
    """$EO_HARNESS_DATA, else `data` in the cache folder."""
    return Path(os.environ.get("EO_HARNESS_DATA") or cache_folder() / "data")


def words(text: str) -> list[str]:
    """`a,b` -> [a, b]; empty parts are dropped."""
    return [word for word in text.split(",") if word]


def parser() -> Parser:
    """Every verb and flag."""
    top = Parser(prog="python -m harness", epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.description = "Measure frozen Earth-observation foundation models, and write leaderboards one can trust."
    verbs = top.add_subparsers(dest="verb", metavar="VERB", parser_class=Parser)

    what = Parser(add_help=False)
    what.add_argument("--model", help="NAME[:variant][,NAME...], a path to an adapter file, or `all`", type=words)
    what.add_argument("--suite", help="a suite (`list suites`)")
    what.add_argument("--dataset", help="NAME[,NAME...] or a path to a TOML file, instead of a suite", type=words)
    what.add_argument("--task", help="only these tasks", type=words)
    what.add_argument("--protocol", help="a named preset of switches (default: the suite's)")
    what.add_argument(
        "--set",
        dest="switches",
        action="append",
        default=[],
        metavar="SWITCH=VALUE",
        help="change a switch of the protocol",
    )
    what.add_argument("--weights", help="official | random | PATH (default: the protocol's)")
    what.add_argument(
        "--draws", type=int, default=0, metavar="N", help="N seeded, stratified, nested subsets per fraction below 1"
    )
    what.add_argument("--train-fraction", type=words, help="0.01,0.10,1.00 (default: the suite's, or 1.00)")
    what.add_argument("--seeds", type=words, help="0,1,2 (default: the protocol's)")
    what.add_argument(
        "--data-root", type=Path, help="where data sets lie (default: $EO_HARNESS_DATA, else the user cache)"
    )
    what.add_argument("--runs", type=Path, default=Path("runs"), help="the journal (default: runs/)")
    what.add_argument("--json", action="store_true", help="the summary as JSON on the last line")

    run = verbs.add_parser("run", parents=[what], help="measure models and write the leaderboard")
    run.add_argument("--label", default="", help="shown in the CSV; two checkpoints of one model need it")
    run.add_argument("--out", type=Path, default=Path("leaderboards"), help="CSV and tables (default: leaderboards/)")
    run.add_argument("--store", type=Path, help="the feature store (default: `store` inside --runs)")
    run.add_argument("--store-limit", metavar="SIZE", help="evict what was least recently used above this, e.g. 50GB")
    run.add_argument("--panels", type=int, default=0, metavar="N", help="draw the first N test images of dense tasks")
    run.add_argument("--limit", type=int, help="the first N images per split; marked, never ranked beside full runs")
    run.add_argument("--device", default="auto", help="auto | cpu | cuda[:N]")
    run.add_argument("--precision", default="fp32", help="fp32 | bf16 | fp16")
    run.add_argument("--batch-size", type=int, default=32)
    run.add_argument("--workers", type=int, default=2, help="threads that read images")
    run.add_argument("--force", action="store_true", help="compute again what the journal already holds")
    run.add_argument("--strict", action="store_true", help="warnings about the data are errors")
    run.add_argument(
        "-v", "--verbose", action="store_true", help="print the compiled transform and what the reader did"
    )
    run.add_argument("-q", "--quiet", action="store_true", help="no progress")

    verbs.add_parser("plan", parents=[what], help="what a run would do and skip, without doing it")

    shows = verbs.add_parser("list", help="models, suites, datasets, protocols")
    shows.add_argument("what", choices=("models", "suites", "datasets", "protocols"))
    shows.add_argument(
        "--transform", metavar="DATASET", help="with models: print every model's transform for this data set"
    )
    shows.add_argument("--markdown", action="store_true", help="with models: the page models/README.md")
    shows.add_argument("--diff", nargs=2, metavar=("A", "B"), help="with protocols: the switches in which two differ")
    shows.add_argument("--protocol", default="clean", help="with --transform: the protocol to compile for")

    rank = verbs.add_parser("rank", help="rebuild a suite's CSV and rank table from the journal; published tables")
    rank.add_argument("--suite")
    rank.add_argument("--published", metavar="PAPER", help="deo | xstars: its tables, beside what the journal holds")
    rank.add_argument("--table", type=words, help="with --published: these tables of the paper (`I,VII`), or `all`")
    rank.add_argument("--runs", type=Path, default=Path("runs"))
    rank.add_argument("--out", type=Path, default=Path("leaderboards"))

    verify = verbs.add_parser("verify", help="compare adapters with their authors' code on parity kits")
    verify.add_argument("model", nargs="+", help="model names, or `all`")
    verify.add_argument("--kits", "--kit", type=Path, required=True, help="a kit, or a folder of kits")

    data = verbs.add_parser("data", help="list, fetch and check data sets; write the synthetic twin")
    data.add_argument("what", choices=("list", "fetch", "check", "twin"))
    data.add_argument("name", nargs="*", help="data sets; to check also paths to TOML files")
    data.add_argument("--data-root", type=Path)
    data.add_argument("--yes", action="store_true", help="with fetch: do not ask")
    data.add_argument("--out", type=Path, default=Path("checks"), help="with check: the reports (default: checks/)")
    data.add_argument("--limit", type=int, help="with check: the first N samples per split")
    data.add_argument("-q", "--quiet", action="store_true", help="no progress")

    add_pretrain(verbs)

    top.verbs = dict(verbs.choices)  # type: ignore[arg-type]
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. 0: done; 1: a run failed; 2: the caller can mend it (one line); anything else is our bug."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if not arguments:
            parser().print_help()
            return 0
        options = parser().parse_args(arguments)
        return _dispatch(options)
    except (UserError, JournalError) as mistake:
        print(f"harness: {' '.join(str(mistake).split())}", file=sys.stderr)
        if "--json" in arguments:
            print(json.dumps({"error": str(mistake), "exit": 2}))
        return 2
    except KeyboardInterrupt:
        print("\nharness: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _dispatch(options: argparse.Namespace) -> int:
    from harness import verbs

    return verbs.VERBS[options.verb](options)
