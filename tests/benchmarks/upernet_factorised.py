"""How much faster the factorised UPerNet is than mmsegmentation's module on a CPU, forward and backward, same weights.

    PYTHONPATH=. python tests/benchmarks/upernet_factorised.py

The two are timed alternately on the pyramid of a ViT-B at 224 pixels (56, 28, 14, 7), and the median of the paired ratios
is printed, so that a machine that is busy for a while slows both. Options: --hidden, --side, --batch, --repeats, --threads.
"""

import argparse
from statistics import median
from time import perf_counter

import torch

from tasks.common.heads import upernet
from tasks.common.heads.factorised import Factorised

WIDTH = 768


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=upernet.HIDDEN)
    parser.add_argument("--side", type=int, default=56)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    plain = upernet.decode_head((WIDTH,) * 4, 2, arguments.hidden, dropout=0)
    sides = [max(1, arguments.side // 2**number) for number in range(4)]
    maps = [torch.randn(arguments.batch, WIDTH, side, side) for side in sides]
    ratios: list[float] = []
    for repeat in range(arguments.repeats + 1):
        times, logits = [], []
        for head in (plain, Factorised(plain)):
            start = perf_counter()
            logits.append(head(maps))
            torch.autograd.grad(logits[-1].square().sum(), [*head.parameters()])
            times.append(perf_counter() - start)
        difference = float((logits[0] - logits[1]).detach().abs().max())
        if repeat:  # the first pair warms up
            ratios.append(times[0] / times[1])
            print(
                f"mmsegmentation {times[0]:.2f} s, factorised {times[1]:.2f} s, logits differ by at most {difference:.1e}"
            )
    print(f"the factorised head of {arguments.hidden} channels is {median(ratios):.2f} times as fast")


if __name__ == "__main__":
    main()
