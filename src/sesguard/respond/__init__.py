"""The response to a leak: `playbook` cuts it, `incident` and `evidence` keep what is known."""
