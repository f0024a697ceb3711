"""
The pure domain: standard library only, no I/O, no clock.

Everything here can be tested without a machine. What must come from outside (time, randomness,
storage) is handed in through the Protocols of `sesguard.core.interfaces`.
"""
