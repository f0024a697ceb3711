"""Answers an MTA that asks, at delivery time, for the SES credential."""
