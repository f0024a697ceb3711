"""The table that people read, and what is known of the machine."""

import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from importlib.metadata import version

from rig.measure import Figures

Results = Mapping[str, Mapping[str, Figures]]
"""By load, then by relay."""

_HEADER = (
    f"{'':29} {'accepted/s':>10} {'ratio':>6} {'deliv./s':>9} {'CPU s/1000':>10} {'ratio':>6}"
    f" {'p50 ms':>8} {'p99 ms':>8} {'peak MB':>8}  lost dupl. altered"
)


def table(results: Results, first: str) -> Iterator[str]:
    """Lines of the table; ratios are `first` over each: above 1, `first` is faster or dearer."""
    for load, relays in results.items():
        yield ""
        yield f"{load:29}" + _HEADER[29:]
        ours = relays.get(first)
        for name, f in relays.items():
            yield (
                f"{name:29} {f.accepted_per_s:10,.0f}"
                f" {_ratio(ours.accepted_per_s if ours else 0, f.accepted_per_s)}"
                f" {f.delivered_per_s:9,.0f} {f.cpu_s_per_1000:10.3f}"
                f" {_ratio(ours.cpu_s_per_1000 if ours else 0, f.cpu_s_per_1000)}"
                f" {f.p50_ms:8.2f} {f.p99_ms:8.2f} {f.peak_mb:8.0f}"
                f"  {f.lost:4} {f.duplicated:5} {f.altered:7}"
            )


def _ratio(ours: float, other: float) -> str:
    return f"{ours / other:6.2f}" if ours and other else f"{'-':>6}"


def verdicts(results: Results) -> Iterator[str]:
    """What issue and documentation promise, beside what was measured."""

    def rate(load: str, relay: str, *, end: bool = False) -> float:
        figures = results.get(load, {}).get(relay)
        if figures is None:
            return 0.0
        return figures.delivered_per_s if end else figures.accepted_per_s

    ours = results.get("4 KB", {}).get("sesguard pass")
    if ours:
        yield f"pass: CPU s/1000 {ours.cpu_s_per_1000:.2f} (target 0.30 or less)"
    pairs = (
        ("pass / Postfix accepted", "sesguard pass", "postfix", False, 4.0),
        ("pass / Postfix delivered", "sesguard pass", "postfix", True, 4.0),
        ("spool / Postfix accepted", "sesguard spool", "postfix", False, 3.0),
        ("2 processes / 1", "sesguard pass, 2 processes", "sesguard pass", False, 1.8),
        ("all rules / no rules", "sesguard pass", "sesguard pass, no rules", False, 0.85),
    )
    for title, one, other, end, target in pairs:
        if rate("4 KB", one) and rate("4 KB", other, end=end):
            ratio = rate("4 KB", one) / rate("4 KB", other, end=end)
            yield f"{title}: {ratio:.2f} (target {target:g} or more)"
    direct, through = (
        results.get("1 connection", {}).get(each) for each in ("sink alone", "sesguard pass")
    )
    if direct and through:
        yield f"pass adds {through.p50_ms - direct.p50_ms:.2f} ms at p50 (target under 1 ms)"
    large = rate("100 KB", "sesguard pass")
    if large:
        yield f"100 KB: {large:,.0f}/s (target 1,500 or more)"
    for load, limit in (("40 MB", None), ("500 connections", 120)):
        figures = results.get(load, {}).get("sesguard pass")
        if figures:
            more = f" (target under {limit})" if limit else f", before {figures.idle_mb:.0f}"
            yield f"{load}: {figures.peak_mb:.0f} MB at most{more}"


def machine() -> dict[str, object]:
    """Facts without which the figures mean little."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "uvloop": version("uvloop"),
        "openssl": _first_line("openssl", "version"),
        "load_average": os.getloadavg()[0],
    }


def _first_line(*command: str) -> str | None:
    try:
        answer = subprocess.run(command, check=False, capture_output=True, text=True, timeout=10)
    except OSError:
        return None
    return answer.stdout.partition("\n")[0] or None
