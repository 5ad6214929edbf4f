"""What reading a mail may cost, held to with room to spare: the figures themselves are in docs/performance.md."""

import runpy
from pathlib import Path

BENCHMARK = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks" / "parsing.py"))


def test_half_a_megabyte_is_read_in_at_most_one_and_a_half_times_the_standard_librarys_time():
    raw = BENCHMARK["mail"](500_000)
    ours = BENCHMARK["cpu"](lambda: BENCHMARK["parse"](raw))
    assert ours <= 1.5 * BENCHMARK["cpu"](lambda: BENCHMARK["standard_library"](raw))


def test_reading_takes_at_most_four_times_the_mails_size_in_memory():
    attached = BENCHMARK["forwarded"](5_000_000)
    unwrapped = attached[attached.index(b"From") :]
    assert BENCHMARK["parse"](unwrapped).unwrapped
    for raw in (BENCHMARK["mail"](5_000_000), attached, unwrapped):
        assert BENCHMARK["memory"](raw) <= 4
