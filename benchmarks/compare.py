"""Compares apptrack-ingest with its peers on this machine: `make bench`, or `python benchmarks/compare.py [PART ...]`.

Parts: accept (mails a second and CPU), latency (milliseconds to the 250), end-to-end (to idibu's confirmation), stages
(where the CPU time of one application goes), waiting (an ATS that takes 200 ms), idle, backlog (at 80 % of the sustained
rate); all of them without a word. The systems take turns, in each of the rounds; ratios are medians over the rounds, each of
two runs that followed one another. Nothing that was answered 250 may be missing afterwards, or the run ends with 1.

`--short` is for trying it out: one round of few mails, whose figures mean little. What is not installed is left out, loudly.
"""

import argparse
import platform
import signal
import sys

import accepting
import end_to_end
import processes
import stages
import tables

PARTS = ("accept", "latency", "end-to-end", "stages", "waiting", "idle", "backlog")


def main() -> None:
    given = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    parts, share = given.parts or PARTS, 0.02 if given.short else given.share
    rounds = given.rounds or (1 if given.short else 5)
    tables.title("What apptrack-ingest costs, beside its peers")
    print(f"{processes.machine()}, Python {platform.python_version()}, load before: {processes.load()}", flush=True)
    try:
        _run(parts, [size * 1000 for size in given.sizes], rounds, share, given.peers)
    except RuntimeError as error:
        print(f"FAILED: {error}", flush=True)
        sys.exit(1)


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n\n")[2], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("parts", nargs="*", choices=[[], *PARTS], help="what to measure; all of it without a word")
    options.add_argument("--short", action="store_true", help="one round of few mails")
    options.add_argument("--share", type=float, default=1.0, help="how much of the mails of a full run to send (1)")
    options.add_argument("--rounds", type=int, default=0, help="how often the systems take turns (5)")
    options.add_argument(
        "--sizes", type=int, nargs="+", default=[2, 60, 500, 5000], choices=[2, 60, 500, 5000], help="KB of a mail"
    )
    options.add_argument("--peers", nargs="+", default=[], help="words in the names of the systems that accept")
    return options.parse_args()


def _run(parts: tuple[str, ...], sizes: list[int], rounds: int, share: float, peers: list[str]) -> None:
    if "accept" in parts or "latency" in parts:
        chosen = accepting.chosen([word.lower() for word in peers])
        if "accept" in parts:
            accepting.throughput(chosen, sizes, rounds, share)
        if "latency" in parts:
            accepting.latency(chosen, rounds, share)
    if "end-to-end" in parts:
        end_to_end.throughput([size for size in sizes if size in end_to_end.MAILS], rounds, share)
    if "stages" in parts:
        stages.show(max(20, int(1_000 * share)))
    if "waiting" in parts:
        end_to_end.waiting(share)
    if "idle" in parts:
        end_to_end.idle(max(2.0, 30 * share), max(5, int(100 * share)))
    if "backlog" in parts and not end_to_end.backlog(share):
        raise RuntimeError("a backlog grows at 80 % of the sustained rate")


if __name__ == "__main__":
    main()
