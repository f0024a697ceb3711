"""
The change of Exim's configuration, as a pure function of its text.

What it does, and nothing else:

- The client side of the authenticators that carry the SES credential goes away (their
  ``client_send`` lines); one authenticator ``sesguard_plain`` takes their place, which asks
  sesguardd at each delivery.
- Every transport that delivers to SES gets ``hosts_require_auth = *``, ``hosts_require_tls = *``
  and certificate verification, so that a missing credential or a wrong server defers the mail.
  Without the first one an Exim that has no credential sends without AUTH, and SES's 530 bounces the
  mail.

In relay mode `sesguard.deploy.exim.relayed` then makes of it a configuration that needs no
credential at all. Applying either mode twice gives the same text as once. Lines that are not named
above are kept to the byte.

Raises `DeployError` where the text does not allow this without a risk, such as a transport that
also delivers elsewhere.

Source: Exim specification, chapters 30 (smtp transport) and 34 (plaintext authenticator).
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sesguard.core.endpoints import is_ses_host
from sesguard.core.shapes import ACCESS_KEY_ID, SES_HOST, SMTP_PASSWORD
from sesguard.deploy.exim.relayed import with_relay, without_relay
from sesguard.deploy.exim.syntax import Block, Option, blocks, expand_macros, macros
from sesguard.errors import DeployError

AUTHENTICATOR: Final = "sesguard_plain"
NOT_RELEASED: Final = "credential-not-released"
"""A file in the runtime directory that never exists; reading it makes Exim defer."""

_PATH: Final = re.compile(r"/[A-Za-z0-9._/+-]*")
REQUIRED: Final = {
    "hosts_require_auth": "*",
    "hosts_require_tls": "*",
    "tls_verify_hosts": "*",
    "tls_verify_cert_hostnames": "*",
}
"""What every transport to SES must have."""
_DROPPED: Final = frozenset({"hosts_try_auth", "hosts_avoid_tls", "tls_try_verify_hosts"})


@dataclass(frozen=True, slots=True)
class Wiring:
    """What the new configuration must say."""

    runtime_directory: Path
    """Directory of sesguardd's sockets."""
    socket: Path
    """The Exim lookup socket."""
    ca_file: Path | None = None
    """CA certificates for the upstream; None: the system's."""
    hosts: frozenset[str] = frozenset()
    """Upstream hosts whose names do not show that they are SES (VPC endpoint, sandbox)."""
    relay: str = ""
    """Relay mode: the relay, as the option ``hosts`` names it; empty in lookup mode."""

    def __post_init__(self) -> None:
        for path in (self.runtime_directory, self.socket, self.ca_file):
            # A colon would split the option, a brace or a dollar sign would be expanded.
            if path is not None and not _PATH.fullmatch(str(path)):
                raise DeployError(
                    "{path} cannot be written into an Exim option",
                    hint="use a path of letters, digits and . _ - + only",
                    path=path,
                )

    def is_upstream(self, host: str) -> bool:
        """Whether mail for `host` goes to SES."""
        return is_ses_host(host) or host.lower().rstrip(".") in self.hosts

    @property
    def client_condition(self) -> str:
        """True for upstream hosts only, so that another relay keeps its own authenticator."""
        others = "".join(f"|{re.escape(host)}" for host in sorted(self.hosts))
        return f"${{if match{{$host}}{{\\N(?i)^({SES_HOST.pattern}{others})$\\N}}}}"

    @property
    def client_send(self) -> str:
        """
        The value of ``client_send``.

        The daemon answers ``^USER^PASSWORD`` and that is sent. Anything else, also no daemon at
        all, makes the expansion fail, on which Exim defers the mail without an AUTH command and
        without a retry record.
        """
        request = "plainx $host|$host_address|$tls_out_cipher|$message_exim_id|$sender_address\\n"
        return (
            f"${{if match{{${{readsocket{{{self.socket}}}{{{request}}}{{5s}}}}}}"
            r"{\N^\^[^^].*$\N}{$0}"
            f"{{${{readfile{{{self.runtime_directory / NOT_RELEASED}}}}}}}}}"
        )


@dataclass(frozen=True, slots=True)
class Rewired:
    """Outcome for one configuration."""

    texts: Mapping[Path, str]
    """New text of each file, changed or not."""
    transports: tuple[str, ...]
    """Transports that deliver to SES."""
    carried: tuple[str, ...]
    """Every literal password that an authenticator carried."""
    hosts: tuple[str, ...]
    """Upstream hosts that are delivered to."""
    credential_found: bool
    """Whether an authenticator carried the credential (or its lookup in a file) itself."""
    in_place: bool
    """Whether the text asks sesguardd, or sends to its relay, after the change."""


@dataclass(slots=True)
class _Edits:
    """Replacements of physical lines of one file, made from the bottom up."""

    lines: list[str]
    changes: list[tuple[int, int, list[str]]] = field(default_factory=list)

    def remove(self, option: Option) -> None:
        self.changes.append((option.start, option.end, []))

    def insert(self, line: int, text: list[str]) -> None:
        unfinished = line == len(self.lines) and not self.lines[-1].endswith("\n")
        self.changes.append((line, line, ["\n", *text] if unfinished else text))

    def replace(self, start: int, end: int, text: list[str]) -> None:
        if self.lines[start:end] != text:
            self.changes.append((start, end, text))

    def result(self) -> str:
        lines = list(self.lines)
        # At one place an insertion is made after the removals below it.
        for start, end, text in sorted(self.changes, key=lambda c: (c[0], c[1]), reverse=True):
            lines[start:end] = text
        return "".join(lines)


def _never(_value: str) -> bool:
    return False


def rewire(
    texts: Mapping[Path, str],
    wiring: Wiring,
    *,
    definitions: Mapping[str, str] | None = None,
    carries_credential: Callable[[str], bool] = _never,
) -> Rewired:
    """
    Change the text of one configuration.

    Args:
        texts: Its files (one, or a main file and what it includes), in Exim's order.
        wiring: What it is to say.
        definitions: Macros that are defined elsewhere.
        carries_credential: Tells of a macro-expanded ``client_send`` whether it looks the
            credential up in a file. It counts only where something is delivered to SES; a literal
            credential always counts.

    Raises:
        DeployError: The change cannot be made without a risk to mail.
    """
    texts = {path: without_relay(text) for path, text in texts.items()}
    known = {**_all_macros(texts.values()), **(definitions or {})}
    files = {path: _Edits(text.splitlines(keepends=True)) for path, text in texts.items()}
    instances = [(edits, block) for edits in files.values() for block in blocks(edits.lines)]
    transports, hosts = _upstream_transports([block for _, block in instances], wiring, known)
    # Debian's stock authenticators look into passwd.client whether there is a route to SES or not.
    looks_up = carries_credential if transports else _never

    found = False
    carried: list[str] = []
    for edits, block in instances:
        if block.value("driver") == "smtp" and block.name in transports:
            _edit_transport(edits, block, wiring)
        if block.name != AUTHENTICATOR and _is_carrier(block, known, looks_up):
            if not found:
                edits.insert(_outside(edits.lines, block.start), _authenticator(wiring))
            for option in block.named("client_send"):
                edits.remove(option)
                carried += SMTP_PASSWORD.findall(expand_macros(option.value, known))
            found = True
    present = [(edits, block) for edits, block in instances if block.name == AUTHENTICATOR]
    for edits, block in present:
        _edit_authenticator(edits, block, wiring, keep=not found)
    results = {path: edits.result() for path, edits in files.items()}
    if wiring.relay:
        results = {
            path: with_relay(text, transports, AUTHENTICATOR, wiring.relay)
            for path, text in results.items()
        }
    return Rewired(
        results,
        tuple(sorted(transports)),
        tuple(carried),
        tuple(sorted(hosts)),
        found,
        found or bool(present),
    )


def _all_macros(texts: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        found = {**macros(text.splitlines(keepends=True)), **found}
    return found


def _upstream_transports(
    instances: list[Block], wiring: Wiring, known: Mapping[str, str]
) -> tuple[set[str], set[str]]:
    """The smtp transports whose mail goes to SES, and to SES only; and the hosts they go to."""
    smtp = {block.name for block in instances if block.value("driver") == "smtp"}
    ours: set[str] = set()
    upstream: set[str] = set()
    others: dict[str, str] = {}
    for block in instances:
        if block.value("driver") == "smtp":
            hosts = _hosts(block.values("hosts"), known)
            named = set(filter(wiring.is_upstream, hosts))
            ours |= {block.name} if named else set()
            upstream |= named
            continue
        transport = expand_macros(block.value("transport") or "", known).strip()
        if transport not in smtp:
            continue
        hosts = _hosts([*block.values("route_list"), *block.values("route_data")], known)
        if hosts and all(map(wiring.is_upstream, hosts)):
            ours.add(transport)
            upstream |= set(hosts)
        else:
            others.setdefault(transport, block.name)
    for name in sorted(ours & others.keys()):
        raise DeployError(
            "transport {transport} delivers to SES and, by router {router}, elsewhere as well",
            hint="give the route to SES a transport of its own, then plan again",
            transport=name,
            router=others[name],
        )
    return ours, upstream


def _hosts(values: Iterable[str], known: Mapping[str, str]) -> list[str]:
    """Host names in route lists, without ports, options and the domain patterns before them."""
    hosts: list[str] = []
    for value in values:
        text = expand_macros(value, known)
        named = [match[0] for match in SES_HOST.finditer(text)]
        # `route_list = DOMAINS HOSTS OPTIONS`, rules separated by semicolons; a host list is
        # separated by colons, in which a port is `host::587`.
        for rule in text.replace('"', " ").split(";"):
            words = rule.split()
            candidates = words[1] if len(words) > 1 else (words[0] if words else "")
            hosts += [host for host in re.split(r"(?<!:):(?!:)", candidates) if host]
        hosts += named
    return [re.sub(r"(::\d+)?(/MX)?(\+.*)?$", "", host.strip("[]")) for host in hosts]


def _is_carrier(block: Block, known: Mapping[str, str], looks_up: Callable[[str], bool]) -> bool:
    if block.value("driver") != "plaintext":
        return False
    values = [expand_macros(value, known) for value in block.values("client_send")]
    literal = [v for v in values if ACCESS_KEY_ID.search(v) and SMTP_PASSWORD.search(v)]
    if any("${" in value for value in literal):
        raise DeployError(
            "authenticator {name} chooses between credentials in its client_send",
            hint="give the other host an authenticator of its own, then plan again",
            name=block.name,
        )
    return bool(literal) or any(map(looks_up, values))


def _authenticator(wiring: Wiring) -> list[str]:
    return [
        "# Made by sesguard: asks sesguardd for the credential at each delivery.\n",
        f"{AUTHENTICATOR}:\n",
        "  driver = plaintext\n",
        "  public_name = PLAIN\n",
        f"  client_condition = {wiring.client_condition}\n",
        f"  hide client_send = {wiring.client_send}\n",
        "\n",
    ]


def _edit_authenticator(edits: _Edits, block: Block, wiring: Wiring, *, keep: bool) -> None:
    """Bring an earlier `sesguard_plain` up to date, or take it away where a new one is put."""
    fresh = _authenticator(wiring)
    start = block.start
    if start and edits.lines[start - 1] == fresh[0]:
        start -= 1
    end = block.options[-1].end
    if keep:
        edits.replace(start, end, fresh[:-1])
    else:
        blank = end < len(edits.lines) and not edits.lines[end].strip()
        edits.replace(start, end + blank, [])


def _edit_transport(edits: _Edits, block: Block, wiring: Wiring) -> None:
    wanted = dict(REQUIRED)
    certificates = block.named("tls_verify_certificates")
    if wiring.ca_file is not None:
        wanted["tls_verify_certificates"] = str(wiring.ca_file)
    elif not certificates or any(o.value in {"", "/dev/null"} for o in certificates):
        wanted["tls_verify_certificates"] = "system"

    added = []
    for name, value in wanted.items():
        present = block.named(name)
        conditional = any(_is_conditional(edits.lines, block, option) for option in present)
        if [option.value for option in present] == [value] and not conditional:
            continue
        for option in present:
            edits.remove(option)
        added.append(f"{name} = {value}\n")
    for name in _DROPPED:
        for option in block.named(name):
            edits.remove(option)
    # Each branch of a conditional may have a driver line of its own.
    for driver in block.named("driver") if added else ():
        indent = re.match(r"[ \t]*", edits.lines[driver.start])
        edits.insert(driver.end, [f"{indent[0] if indent else ''}{line}" for line in added])


def _outside(lines: list[str], line: int) -> int:
    """The line of the outermost ``.ifdef`` that `line` stands in, or `line` itself."""
    depth, start = 0, line
    for number, text in enumerate(lines[:line]):
        word = text.strip().split(maxsplit=1)[0] if text.strip() else ""
        if word in {".ifdef", ".ifndef"}:
            start = number if depth == 0 else start
            depth += 1
        elif word == ".endif":
            depth -= 1
    return start if depth > 0 else line


def _is_conditional(lines: list[str], block: Block, option: Option) -> bool:
    """Whether an option stands between ``.ifdef`` and ``.endif``."""
    depth = 0
    for line in lines[block.start : option.start]:
        word = line.strip().split(maxsplit=1)[0] if line.strip() else ""
        depth += (word in {".ifdef", ".ifndef"}) - (word == ".endif")
    return depth > 0
