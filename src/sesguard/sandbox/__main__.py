"""
``python -m sesguard.sandbox``: one sandbox, in the foreground, logging to its directory.

What ends it goes to the log too, where `sesguard.sandbox.process` looks for the reason.
"""

import argparse
import logging
import sys
from pathlib import Path

from sesguard.errors import Error
from sesguard.sandbox.model import DEFAULT_REGION, LOG_FILE, LOGGER
from sesguard.sandbox.service import Options, serve, set_up_logging

_log = logging.getLogger(LOGGER)


def main() -> int:
    """Run a sandbox as the arguments say, and give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sesguard.sandbox", allow_abbrev=False)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--region", default=DEFAULT_REGION)
    parser.add_argument("--http-port", type=int, default=0)
    parser.add_argument("--starttls-port", type=int, default=0)
    parser.add_argument("--tls-port", type=int, default=0)
    parser.add_argument("--exit-with-parent", action="store_true")
    options = Options(**vars(parser.parse_args()))
    set_up_logging(logging.FileHandler(options.directory / LOG_FILE, mode="w", encoding="utf-8"))
    try:
        serve(options)
    except Error as error:
        _log.error("%s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
