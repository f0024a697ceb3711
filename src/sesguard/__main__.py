"""``python -m sesguard``."""

from sesguard.cli.main import run

if __name__ == "__main__":
    run()
