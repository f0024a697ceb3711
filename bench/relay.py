"""
The relay beside other relays, under the same loads and in front of the same sink.

Usage: python bench/relay.py [--quick] [--only NAME,...] [--loads NAME,...] [--json FILE]

sesguard (`pass` and `spool`, one and two processes), Postfix, Exim, OpenSMTPD and Haraka are run in
turns; what cannot be had on this machine is left out with the reason. Upstream is a sink with
STARTTLS and AUTH that writes down each message, so that what was lost, duplicated or altered is
counted. All queues are on one disk. Clients run without pipelining, as PHPMailer and smtplib do.

    40 MB            one message: whether memory grows with it
    1 connection     latency, MAIL to the last 250; "sink alone" is without a relay
    4 KB             50 connections, a new one for each message
    4 KB, reuse      50 connections that are kept
    100 KB           50 connections, a new one for each message
    500 connections  likewise: memory
    queue depth      `spool`, with 1,000 and with 1,000,000 messages held in the queue

Each figure is the median of three rounds, one with ``--quick``, which also leaves the million out.
Load, sink and relay share the cores: rates are those of all three, CPU time is the relay's own.
Ratios are "sesguard pass" over the other. A full run takes about half an hour.
"""

import argparse
import json
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rig import ours, peers
from rig.depth import measure_depths
from rig.measure import Figures, Relay, loads, measure, measure_all, median
from rig.native import CACHE, Load, Sink, Target, running_sink
from rig.peers import Running, Unavailable
from rig.report import Results, machine, table, verdicts

RELAYS: tuple[Relay, ...] = (
    ours.PASS,
    ours.SPOOL,
    ours.PASS_2,
    ours.SPOOL_2,
    ours.PASS_UNIX,
    ours.PASS_PLAIN,
    peers.POSTFIX,
    peers.EXIM,
    peers.EXIM_CUTTHROUGH,
    peers.OPENSMTPD,
    peers.HARAKA_FORWARD,
)
VARIANTS = {relay.name for relay in (ours.PASS_2, ours.SPOOL_2, ours.PASS_UNIX, ours.PASS_PLAIN)}
"""Only these loads tell something of them."""
VARIANT_LOADS = {"4 KB", "4 KB, reuse"}
DEPTHS, QUICK_DEPTHS = (1_000, 1_000_000), (1_000, 20_000)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured."""

    relays: tuple[Relay, ...]
    loads: dict[str, Load]
    rounds: int
    depths: tuple[int, ...]


def say(text: str) -> None:
    """Tell how far it is."""
    sys.stderr.write(f"{text}\n")


def available(relays: tuple[Relay, ...]) -> tuple[Relay, ...]:
    """Those that can be had; says why not of the others."""
    found = []
    for relay in relays:
        try:
            relay.prepare()
            found.append(relay)
        except Unavailable as reason:
            say(f"left out: {relay.name} ({reason})")
    return tuple(found)


def sink_alone(sink: Sink, load: Load, run: str) -> Figures:
    """The load without a relay: straight to the sink, with STARTTLS and AUTH."""
    return measure(
        Running(Target(sink.port), sink.process.pid), sink, replace(load, starttls=True), run
    )


def run(plan: Plan) -> Results:
    """Measure all relays in turns; the rounds are outside, so that noise meets all alike."""
    rounds: dict[str, dict[str, list[Figures]]] = {name: defaultdict(list) for name in plan.loads}
    for number in range(plan.rounds):
        for index, relay in enumerate(plan.relays):
            say(f"round {number + 1} of {plan.rounds}: {relay.name}")
            chosen = [
                each
                for each in plan.loads.items()
                if relay.name not in VARIANTS or each[0] in VARIANT_LOADS
            ]
            with running_sink(CACHE / "run" / "sink") as sink:
                try:
                    for name, figures in measure_all(relay, sink, chosen, f"{number}.{index}."):
                        rounds[name][relay.name].append(figures)
                except (Unavailable, TimeoutError) as reason:
                    say(f"gave up on {relay.name}: {reason}")
                if index == 0 and "1 connection" in plan.loads:
                    alone = sink_alone(sink, plan.loads["1 connection"], f"{number}.s")
                    rounds["1 connection"]["sink alone"].append(alone)
    results = {
        load: {relay: median(figures) for relay, figures in found.items()}
        for load, found in rounds.items()
    }
    if plan.depths:
        results["queue depth, spool, 4 KB"] = run_depths(plan)
    return results


def run_depths(plan: Plan) -> dict[str, Figures]:
    """Measure queues of several lengths."""
    say("queue depth")
    with running_sink(CACHE / "run" / "sink") as sink:
        try:
            return dict(measure_depths(sink, plan.depths, plan.loads["4 KB"]))
        except Unavailable as reason:
            say(f"left out: queue depth ({reason})")
            return {}


def chosen_of(text: str | None, names: list[str]) -> list[str]:
    """The names of a comma-separated option, or all; a part of a name is enough."""
    if text is None:
        return names
    words = [word.strip().lower() for word in text.split(";" if ";" in text else ",")]
    return [name for name in names if any(word in name.lower() for word in words)]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--quick", action="store_true", help="one round of short loads")
    parser.add_argument("--only", metavar="NAME,...", help="relays with one of these in the name")
    parser.add_argument("--loads", metavar="NAME,...", help="loads with one of these in the name")
    parser.add_argument("--rounds", type=int, help="default: 3, with --quick 1")
    parser.add_argument("--seconds", type=float, help="of each load; default: 6, with --quick 2")
    parser.add_argument("--no-depth", action="store_true", help="leave the queue depth out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    options = parser.parse_args()
    every_load = loads(options.seconds or (2 if options.quick else 6))
    names = chosen_of(options.only, [relay.name for relay in RELAYS])
    plan = Plan(
        available(tuple(relay for relay in RELAYS if relay.name in names)),
        {name: every_load[name] for name in chosen_of(options.loads, list(every_load))},
        options.rounds or (1 if options.quick else 3),
        () if options.no_depth or options.only else QUICK_DEPTHS if options.quick else DEPTHS,
    )
    facts = machine()
    results = run(plan)
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    for line in (*table(results, ours.PASS.name), "", *verdicts(results)):
        print(line)
    if options.json:
        document = {
            "machine": facts,
            "rounds": plan.rounds,
            "results": {
                load: {relay: asdict(figures) for relay, figures in relays.items()}
                for load, relays in results.items()
            },
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    wrong = [f for relays in results.values() for f in relays.values() if f.lost or f.duplicated]
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
