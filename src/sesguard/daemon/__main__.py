"""``python -m sesguard.daemon --config FILE``: sesguardd without the rest of the command line."""

import argparse
import sys
from pathlib import Path

from sesguard.config.load import load_settings, settings_path
from sesguard.daemon.service import serve
from sesguard.errors import Error


def main() -> int:
    """Run the daemon and give the exit code."""
    parser = argparse.ArgumentParser(prog="sesguardd", description="Serves the SES credential.")
    parser.add_argument("--config", type=Path, help="settings file (or SESGUARD_CONFIG)")
    try:
        serve(load_settings(settings_path(parser.parse_args().config).absolute()))
    except Error as error:
        hint = f"hint: {error.hint}\n" if error.hint else ""
        sys.stderr.write(f"sesguardd: {error}\n{hint}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
