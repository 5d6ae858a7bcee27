"""What the clients of databases print is read, and the table compares each round with the bare volume's."""

from __future__ import annotations

from bench.databases import Figure, Load, measure, pgbench_rate, redis_rate, table

PGBENCH = """\
pgbench (15.20 (Debian 15.20-0+deb12u1))
transaction type: <builtin: TPC-B (sort of)>
number of transactions actually processed: 300/300
number of failed transactions: 0 (0.000%)
latency average = 75.514 ms
initial connection time = 51.307 ms
tps = 26.487232 (without initial connection time)
"""
REDIS = """\
"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
"SET","1234.50","6.0","1.0","5.9","8.1","9.7","12.3"
"""


class Counted:
    """A place that is faster with each run, and remembers what was asked of it."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.asked: list[tuple[str, ...]] = []

    def run(self, *argv: str) -> str:
        self.asked.append(argv)
        return str(self.rate)


def test_rates_are_read_from_what_the_clients_print() -> None:
    assert pgbench_rate(PGBENCH) == 26.487232
    assert redis_rate(REDIS) == 1234.5


def test_each_round_asks_every_place_once_and_begins_with_another_one() -> None:
    order: list[str] = []

    class Noted(Counted):
        def run(self, *argv: str) -> str:
            if argv == ("run",):
                order.append(str(self.rate))
            return super().run(*argv)

    places = {"pod": Noted(9.0), "bare volume": Noted(10.0)}
    load = Load(name="l", unit="u", prepare=[("prepare",)], before=("before",), run=("run",), rate=float)
    figures = measure(places, [load], rounds=2)
    assert [each.asked for each in places.values()] == [[("prepare",), *[("before",), ("run",)] * 3]] * 2
    assert order == ["10.0", "9.0", "9.0", "10.0", "10.0", "9.0"]
    assert [each.rates for each in figures] == [[9.0, 9.0], [10.0, 10.0]]
    assert figures[0].ratios == [0.9, 0.9]


def test_the_table_has_the_median_of_the_rounds_ratios_and_not_the_ratio_of_medians() -> None:
    figure = Figure(load="l", unit="u", place="pod", rates=[1.0, 2.0, 9.0], ratios=[0.98, 1.00, 0.99])
    (line,) = table([figure]).splitlines()[1:]
    assert line.split() == ["l", "pod", "2.0", "1.0", "9.0", "0.990", "0.980-1.000", "3"]
