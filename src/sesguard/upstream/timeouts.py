"""How long a message to SES, and a session with it, may take."""

from dataclasses import dataclass

from sesguard.upstream.pace import LAG_S, SILENCE_S
from sesguard.upstream.smtp import FINAL_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long things may take, in seconds."""

    session_s: float = 20.0
    """To set up a session, from the TCP connection to the reply to AUTH."""
    reply_s: float = 60.0
    """For the reply to a command."""
    data_s: float = 180.0
    """For the upstream to take some of the message (RFC 5321, 4.5.3.2.5)."""
    final_s: float = FINAL_TIMEOUT_S
    """For the reply to a whole message."""
    wait_s: float = 60.0
    """For a message to get a session."""
    silence_s: float = SILENCE_S
    """For a client to send more of a message that has a session."""
    lag_s: float = LAG_S
    """How far a client may be behind (`sesguard.upstream.pace`) while others wait."""
    idle_s: float = 8.0
    """An idle session is closed before SES does so, after about 10 s."""
    age_s: float = 300.0
    """A session is renewed after so long."""
    connect_rest_s: float = 1.0
    """No session is tried for so long after none could be opened."""
    login_rest_s: float = 5.0
    """The same after a refused login."""
    endpoint_rest_s: float = 30.0
    """An endpoint that failed is left alone for so long while another one works."""
