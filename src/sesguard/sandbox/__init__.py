"""
An AWS and SES of its own for tests, for the demo and for trying things out: no account, no network.

One process holds moto (IAM, SES and the other AWS APIs) behind our overlay, and an SES SMTP
endpoint whose users are the access keys in moto. Everything listens on loopback only. Start it with
`sesguard.sandbox.process`, drive it with `sesguard.sandbox.client`; ``docs/reference/sandbox.md``
says what it does as SES does and what it leaves out.

Importing this package or one of `model`, `client`, `process` and `seed` does not import moto: that
is done by the process of the sandbox alone.
"""
