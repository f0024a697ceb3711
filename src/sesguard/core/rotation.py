"""The steps of a rotation, in their order."""

from enum import StrEnum


class RotationStep(StrEnum):
    """Each is made of one or more journaled steps of the engine."""

    CREATE = "CREATE"
    """A new IAM key, sealed as PENDING."""
    TEST = "TEST"
    """SES takes the new key, several times in a row."""
    DEPLOY = "DEPLOY"
    """PENDING becomes CURRENT, and every target uses it."""
    FINISH = "FINISH"
    """The old key, now PREVIOUS, is deactivated once no session uses it."""
    RETIRE = "RETIRE"
    """The old key is deleted after a time without a use."""
