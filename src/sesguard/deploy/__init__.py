"""Deployers: each finds one kind of mail program, and rewires it to ask for its credential."""
