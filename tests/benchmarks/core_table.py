"""The core's candles a second beside backtesting.py's, as a section of the report."""

from typing import Any

from tests.benchmarks.report import Row, Section


def report(found: dict[str, Any]) -> Section:
    """One row for each density of decisions."""
    return Section(
        name="core",
        rows=[
            Row(
                case=f"fold and metrics, {name}",
                measured=f"{case['candles_per_second']:,.0f} candles/s",
                beside=f"backtesting.py {case['peer_candles_per_second']:,.0f} candles/s",
                ratio=f"{case['ratio']:.2f}",
                target="≥ 1",
            )
            for name, case in found["cases"].items()
        ],
        method=(
            f"{found['candles']:,} real candles and the same recorded decisions for both, which "
            "take turns; processor time of a whole test with its statistics, median of the "
            "repetitions."
        ),
    )
