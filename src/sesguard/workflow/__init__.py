"""The one engine for every change to a host or to AWS: steps, journal, executor, undo."""
