"""
A text for people that is not an error: a template and its parameters.

As with errors, the command line translates the template and fills the parameters in afterwards, so
that the layers below know nothing about languages. A parameter is never a secret.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sesguard.errors import fill


@dataclass(frozen=True, slots=True)
class Message:
    """A translatable text; ``str()`` gives the English one."""

    template: str
    parameters: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        return fill(self.template, dict(self.parameters))


def message(template: str, /, **parameters: object) -> Message:
    """Make a `Message`; the template is a literal, so that translators see it."""
    return Message(template, parameters)
