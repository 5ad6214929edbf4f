"""Kills intakes and workers under load and shows that nothing is lost: `make soak`, or `python benchmarks/chaos.py SECONDS`.

Three intakes and three workers on one PostgreSQL of its own, one of them killed (SIGKILL) about every second and started
again, and the server itself stopped hard in the middle; then the same with one intake and one worker on SQLite.
Exits with 1 when a mail that was answered 250 is not accounted for, an application was handed over twice without a kill in
between, or idibu was told anything else than what the ledger says. The seed that it prints chooses the same victims again,
as far as the same ones are up.
"""

import argparse
import secrets
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from chaos import Plan, Result, besiege
from postgres import MISSING, Server, programs


def on_postgres(plan: Plan) -> Result:
    """On a server of its own."""
    found = programs()
    if found is None:
        raise SystemExit(MISSING)
    server = Server(found)
    try:
        server.start()
        with tempfile.TemporaryDirectory(prefix="chaos-") as directory:
            return besiege(Path(directory), plan, url=server.url(server.make()), database=server)
    finally:
        server.remove()


def on_sqlite(plan: Plan) -> Result:
    """On one file."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as directory:
        return besiege(Path(directory), plan)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "seconds", nargs="?", type=int, default=120, help="how long processes are killed on each database"
    )
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="chooses who is killed when")
    options = parser.parse_args()
    print(f"chaos, seed {options.seed}", flush=True)
    results = {}
    for name, siege, plan in (
        ("PostgreSQL, 3 intakes, 3 workers", on_postgres, Plan(3, 3, options.seconds, seed=options.seed)),
        ("SQLite, 1 intake, 1 worker", on_sqlite, Plan(1, 1, options.seconds, every=2.0, seed=options.seed)),
    ):
        results[name] = siege(plan)
        print(f"{name}: {results[name]}", flush=True)
    sys.exit(any(result.problems for result in results.values()))


if __name__ == "__main__":
    main()
