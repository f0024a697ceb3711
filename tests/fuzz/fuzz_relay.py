"""
Hostile input to the receiving grammar of the relay: commands, lines, DATA and BDAT.

Real dialogues are cut up, repeated, mixed and broken, and fed in pieces to `rigs.relay_laws`. Input
N of a seed is always the same, so a run is resumed with --first and a failure is repeated with
--replay. Each input may use a second of CPU time. Exit status: 0 all laws held, 1 one did not (the
input is printed), 2 usage.
"""

import argparse
import multiprocessing
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Self

from rigs.relay_laws import check_chunk_stream, check_command, check_dot_stream, check_lines

CPU_S = 1.0
BATCH = 5_000

COMMANDS = (
    b"EHLO shop.example",
    b"MAIL FROM:<bounce@shop.example> SIZE=4321 BODY=8BITMIME",
    b"MAIL FROM:<> RET=HDRS ENVID=QQ314159",
    b"mail from: <a.b+c=d@sub.shop.example>",
    b"MAIL FROM:<=?utf-8?q?a?=@shop.example> AUTH=<>",
    "MAIL FROM:<jos\xe9@caf\xe9.example> SMTPUTF8".encode(),
    b'RCPT TO:<"john doe"@example.com> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a+2Bb@example.com',
    b"RCPT TO:<@relay.example,@b.example:user@example.com>",
    b"RCPT TO:<user@[192.0.2.1]>",
    b"RCPT TO:<user@[IPv6:2001:db8::1]> NOTIFY=NEVER",
    b"RCPT TO:<postmaster>",
    b"RCPT TO:user@example.com",
    b"AUTH PLAIN AHNob3AAdG9rZW4=",
    b"AUTH LOGIN",
    b"AUTH \0shop\0token",
    b"BDAT 86 LAST",
    b"BDAT 0",
    b"DATA",
    b"XCLIENT ADDR=192.0.2.1 NAME=x",
)
TEXTS = (
    b"From: Shop <shop@shop.example>\r\nTo: a@b.example\r\nSubject: Hello\r\n\r\nHello.\r\n",
    b"Subject: dots\r\n\r\n..\r\n...\r\n.a\r\n \r\n.. end\r\n",
    b"Content-Transfer-Encoding: base64\r\n\r\nSGVsbG8gd29ybGQsIGhlbGxvIHdvcmxk\r\n" * 3,
    b"Subject: no body\r\n",
    b"a\xc3\xa9\xff\r\n",
)
ODD = (
    *(b"\r\n.\r\n", b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\n", b"\r\r\n.\r\n", b"\r\n.\r"),
    *(b"\r\n\0.\r\n", b"\r", b"\n", b"\0", b".", b"\r\n", b"\r\n.", b" ", b"\t", b"<", b">", b"@"),
    *(
        b'"',
        b"\\",
        b"=",
        b",",
        b";",
        b":",
        b"+",
        b"[",
        b"]",
        b"\x7f",
        b"\x80",
        b"\xff",
        b"\xc2\x85",
    ),
    *(b"\xe2\x80\xa8", b"\xef\xbc\xa0", b"\xe3\x80\x82", b"\xf0\x9f\x93\xa7", b"\xed\xa0\x80"),
    *(b"FROM:<", b"TO:<", b" SIZE=", b" SMTPUTF8", b" BODY=", b" LAST", b"99999999999999999999"),
)

Case = tuple[str, list[bytes]]


def split(dice: random.Random, data: bytes) -> list[bytes]:
    """Cut data into pieces: none, few, or each octet."""
    style = dice.random()
    if style < 0.3 or not data:
        return [data]
    if style < 0.4:
        return [data[at : at + 1] for at in range(len(data))]
    places = sorted(dice.randrange(len(data) + 1) for _ in range(dice.randint(1, 6)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def broken(dice: random.Random, data: bytes) -> bytes:
    """Change a few places of data."""
    for _ in range(dice.choice((0, 1, 1, 2, 3, 6))):
        at = dice.randrange(len(data) + 1)
        act = dice.random()
        if act < 0.6:
            data = data[:at] + dice.choice(ODD) + data[at:]
        elif act < 0.75:
            data = data[:at] + data[at + dice.randint(1, 8) :]
        elif act < 0.9:
            data = data[:at] + bytes((dice.randrange(256),)) + data[at + 1 :]
        else:
            data = data[:at] + data[at : at + 30] * dice.choice((2, 10, 200)) + data[at:]
    return data


def generate(seed: int, number: int) -> Case:
    """Make input `number` of a seed."""
    dice = random.Random(seed << 64 | number)
    kind = dice.choice(("command", "command", "lines", "dots", "dots", "chunks"))
    if kind == "command":
        return kind, [broken(dice, dice.choice(COMMANDS))]
    if kind == "lines":
        lines = b"\r\n".join(dice.choices(COMMANDS, k=dice.randint(1, 5)))
        return kind, split(dice, broken(dice, lines + b"\r\n"))
    text = broken(dice, b"".join(dice.choices(TEXTS, k=dice.randint(1, 2))))
    if kind == "dots":
        end = dice.choice((b".\r\n", b"\r\n.\r\n", b""))
        return kind, split(dice, text + end + broken(dice, b"QUIT\r\n"))
    return kind, split(dice, text)


def check_pieces_as_chunks(pieces: Sequence[bytes]) -> None:
    """Each piece is a chunk, and comes once whole and once in halves."""
    check_chunk_stream([[piece] for piece in pieces])
    check_chunk_stream([[p[: len(p) // 2], p[len(p) // 2 :]] for p in pieces])


LAWS: dict[str, Callable[[Sequence[bytes]], None]] = {
    "command": lambda pieces: check_command(b"".join(pieces)),
    "lines": check_lines,
    "dots": check_dot_stream,
    "chunks": check_pieces_as_chunks,
}


def too_slow(_signal: int, _frame: object) -> None:
    """Stop an input that has used up its time."""
    raise TimeoutError(f"more than {CPU_S} s of CPU time")


def fails(case: Case) -> bool:
    """Try one input; print it when a law is broken."""
    kind, pieces = case
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_S)
    try:
        LAWS[kind](pieces)
    except Exception:  # noqa: BLE001 - any exception at all is what is sought
        traceback.print_exc()
        print(f"repeat with: --replay {kind} {','.join(piece.hex() for piece in pieces)}")
        return True
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return False


def run_batch(batch: tuple[int, int, int]) -> int | None:
    """Try a run of inputs; give the number of one that failed."""
    seed, first, count = batch
    signal.signal(signal.SIGVTALRM, too_slow)
    return next((n for n in range(first, first + count) if fails(generate(seed, n))), None)


def run(seed: int, first: int, count: int, seconds: float, processes: int) -> int:
    """Try inputs until all are done or the time is over; give the exit status."""
    end = first + count
    batches = ((seed, at, min(BATCH, end - at)) for at in range(first, end, BATCH))
    started = time.monotonic()
    done, failed = 0, None
    with multiprocessing.Pool(processes) if processes > 1 else _Here() as pool:
        for failed in pool.imap(run_batch, batches):
            done = min(done + BATCH, count)
            if failed is not None or time.monotonic() - started > seconds:
                break
    took = time.monotonic() - started
    verdict = "all laws held" if failed is None else f"input {failed} broke a law"
    where = f"seed {seed}, next --first {first + done}"
    print(f"fuzz_relay: {done} inputs in {took:.0f} s ({where}): {verdict}")
    return 0 if failed is None else 1


class _Here:
    """A pool of no processes."""

    imap = staticmethod(map)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000, help="inputs")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--replay", nargs=2, metavar=("KIND", "HEX,HEX"), help="one input")
    args = parser.parse_args()
    if args.replay:
        signal.signal(signal.SIGVTALRM, too_slow)
        kind, pieces = args.replay
        return int(fails((kind, [bytes.fromhex(piece) for piece in pieces.split(",")])))
    return run(args.seed, args.first, args.count, args.seconds, args.processes)


if __name__ == "__main__":
    sys.exit(main())
