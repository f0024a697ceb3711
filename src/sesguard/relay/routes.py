"""Which credential and which configuration set a message of an app goes with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sesguard.core.routing import RoutingRule, choose_rule, sender_domain
from sesguard.relay.model import App


@dataclass(frozen=True, slots=True)
class Route:
    """How a message goes on."""

    credential_id: str | None
    """None: no credential is needed, the API sends by the role of the instance."""
    configuration_set: str | None


class Routes:
    """
    Finds routes; what was found once is remembered.

    Args:
        rules: Of all credentials; none when the API sends.
        configuration_sets: Of the credentials that have one.
    """

    def __init__(
        self, rules: Sequence[RoutingRule], configuration_sets: Mapping[str, str | None]
    ) -> None:
        self._rules = tuple(rules)
        self._configuration_sets = configuration_sets
        self._found: dict[tuple[str, str | None], Route] = {}

    def find(self, app: App, envelope_sender: str) -> Route:
        """
        The route of a message.

        Raises:
            CredentialError: No credential serves the sender, or several do.
        """
        key = (app.name, sender_domain(envelope_sender))
        route = self._found.get(key)
        if route is None:
            route = self._choose(app, envelope_sender)
            if len(self._found) >= _MOST:
                self._found.clear()
            self._found[key] = route
        return route

    def _choose(self, app: App, envelope_sender: str) -> Route:
        credential_id = app.credential_id
        if credential_id is None and self._rules:
            credential_id = choose_rule(self._rules, None, envelope_sender).credential_id
        default = self._configuration_sets.get(credential_id or "")
        return Route(credential_id, app.configuration_set or default)


_MOST = 10_000
"""Routes remembered; senders' domains are the app's to choose."""
