"""The TCP ports of the relay: passed by the service manager, or taken by somebody else."""

import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from rigs.daemon import Daemon, start_daemon, wait_until
from rigs.relay_host import RelayHost, children_of, relay_host
from rigs.relay_wire import wire
from rigs.sandbox import SandboxRig
from sesguard.sandbox.seed import SeededKey
from sesguard.system.privileges import is_root
from unit.relaying.test_public_listener import NETWORK, SETUP, needs_network

# Gives the descriptors that it is told to what it runs, as a service manager does.
PASS_ON = """
import os, sys
for number, descriptor in enumerate(os.environ["PASSED"].split(), 3):
    os.dup2(int(descriptor), 500 + number)
for number in range(3, 3 + int(os.environ["LISTEN_FDS"])):
    os.dup2(500 + number, number, inheritable=True)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[1], sys.argv[1:])
"""
LOW = "127.0.3.1"
NET_BIND_SERVICE = 1 << 10


@contextmanager
def listening(*addresses: tuple[str, int]) -> Iterator[list[socket.socket]]:
    """Sockets that listen there and accept nobody."""
    with ExitStack() as stack:
        found = []
        for host, port in addresses:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            made = stack.enter_context(socket.create_server((host, port), family=family))
            found.append(made)
        yield found


@contextmanager
def activated(host: RelayHost, passed: Sequence[socket.socket]) -> Iterator[Daemon]:
    """The daemon of a host, started with sockets."""
    with host.running(
        wrapper=(sys.executable, "-c", PASS_ON),
        environment=_variables(passed),
        pass_fds=[each.fileno() for each in passed],
    ) as daemon:
        yield daemon


def _variables(passed: Sequence[socket.socket]) -> dict[str, str]:
    return {
        "PASSED": " ".join(str(each.fileno()) for each in passed),
        "LISTEN_FDS": str(len(passed)),
        "LISTEN_FDNAMES": ":".join(["sesguardd-relay.socket"] * len(passed)),
    }


def is_free(address: str, port: int) -> bool:
    """Whether somebody could listen there."""
    try:
        with listening((address, port)):
            return True
    except OSError:
        return False


def permitted(pid: int) -> int:
    """The capabilities of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("CapPrm:")[2].split()[0], 16)


@pytest.mark.parametrize("processes", [1, 2])
def test_port_is_held_while_the_daemon_is_down(
    processes: int, ses: SandboxRig, ses_key: SeededKey
) -> None:
    """Nobody can take it, and clients that come meanwhile are served afterwards."""
    with (
        relay_host(ses, key=ses_key, relay=f"processes = {processes}\n") as host,
        listening(("127.0.0.1", host.port), ("::1", host.port)) as passed,
    ):
        for _ in range(2):
            early = [host.tcp(), host.tcp(v6=True)]
            with activated(host, passed) as daemon:
                assert [] == daemon.status()["relay"]["not_listening"]
                for channel in (*early, host.tcp(), host.tcp(v6=True)):
                    with wire(channel) as client:
                        assert client.send().startswith(b"250 ")
            for address in ("127.0.0.1", "0.0.0.0", "::1"):
                assert not is_free(address, host.port)


def test_what_was_not_passed_is_opened(ses: SandboxRig, ses_key: SeededKey) -> None:
    """One of two addresses."""
    with (
        relay_host(ses, key=ses_key, relay="processes = 2\n") as host,
        listening(("::1", host.port)) as passed,
        activated(host, passed),
    ):
        for v6 in (False, True):
            with wire(host.tcp(v6=v6)) as client:
                assert client.send().startswith(b"250 ")


def test_passed_socket_that_the_settings_do_not_name_is_refused(
    ses: SandboxRig, ses_key: SeededKey
) -> None:
    """Clients would wait there for ever; the address is told."""
    with relay_host(ses, key=ses_key) as host, listening(("127.0.0.2", host.port)) as passed:
        daemon = start_daemon(
            host.settings_path,
            wrapper=(sys.executable, "-c", PASS_ON),
            environment=_variables(passed),
            pass_fds=[each.fileno() for each in passed],
        )
        assert 4 == daemon.process.wait(20)
        text = daemon.log_path.read_text()
        assert f"127.0.0.2:{host.port}, which relay.listen does not name" in text


def test_passed_socket_without_an_app_is_told(ses: SandboxRig, ses_key: SeededKey) -> None:
    """There is no relay then; the rest works."""
    with (
        relay_host(ses, key=ses_key, apps="") as host,
        listening(("127.0.0.1", host.port)) as passed,
        activated(host, passed) as daemon,
    ):
        assert 1 == len(daemon.events("socket.unused"))


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_busy_port_is_waited_for(
    address: str, processes: int, ses: SandboxRig, ses_key: SeededKey
) -> None:
    """The rest is served, the trouble is told, and all processes listen once it is free."""
    with (
        relay_host(ses, key=ses_key, relay=f"processes = {processes}\n") as host,
        ExitStack() as squatter,
    ):
        squatter.enter_context(listening((address, host.port)))
        with host.running() as daemon:
            name = f"127.0.0.1:{host.port}"
            assert [name] == daemon.status()["relay"]["not_listening"]
            for channel in (host.unix(), host.tcp(v6=True)):
                with wire(channel) as client:
                    assert client.send().startswith(b"250 ")
            wait_until(lambda: len(daemon.events("socket.busy")) == processes, "the log")
            squatter.close()
            wait_until(lambda: len(daemon.events("socket.opened")) == processes, "the port")
            assert [] == daemon.status()["relay"]["not_listening"]
            for _ in range(4):
                with wire(host.tcp()) as client:
                    assert client.send().startswith(b"250 ")
            assert [(name, "cannot listen on " + name + ": Address already in use")] == list(
                {(each["name"], each["detail"]) for each in daemon.events("socket.busy")}
            )
            assert {0} == {permitted(pid) for pid in (daemon.pid, *children_of(daemon.pid))}


def test_worker_that_is_replaced_opens_a_late_port_again(
    ses: SandboxRig, ses_key: SeededKey
) -> None:
    """It was no socket of the supervisor, so the new process opens one beside the other's."""
    with (
        relay_host(ses, key=ses_key, relay="processes = 2\n") as host,
        ExitStack() as squatter,
    ):
        squatter.enter_context(listening(("127.0.0.1", host.port)))
        with host.running() as daemon:
            squatter.close()
            wait_until(lambda: len(daemon.events("socket.opened")) == 2, "the port")
            os.kill(children_of(daemon.pid)[1], signal.SIGKILL)
            wait_until(lambda: len(daemon.events("socket.opened")) == 3, "another worker")
            for _ in range(20):
                with wire(host.tcp()) as client:
                    assert client.send().startswith(b"250 ")


@pytest.mark.skipif(not is_root(), reason="left out: root is needed for a port below 1024")
@pytest.mark.parametrize("processes", [1, 2])
def test_busy_port_below_1024_is_waited_for(
    processes: int, ses: SandboxRig, ses_key: SeededKey
) -> None:
    """With the one right that this needs, which no daemon has that does not need it."""
    with relay_host(ses, key=ses_key, relay=f"processes = {processes}\n") as host:
        host.port = next(port for port in range(1023, 900, -1) if is_free(LOW, port))
        host.listen = f'"{LOW}:{{port}}"'
        host.write_settings()
        with ExitStack() as squatter:
            squatter.enter_context(listening((LOW, host.port)))
            with host.running() as daemon:
                pids = daemon.pid, *children_of(daemon.pid)
                assert {NET_BIND_SERVICE} == {permitted(pid) for pid in pids}
                squatter.close()
                wait_until(lambda: len(daemon.events("socket.opened")) == processes, "the port")
                with wire(socket.create_connection((LOW, host.port))) as client:
                    assert client.send().startswith(b"250 ")
        with host.running() as daemon:
            pids = daemon.pid, *children_of(daemon.pid)
            assert {0} == {permitted(pid) for pid in pids}


@needs_network
def test_host_without_ipv6_has_no_ipv6_listener(ses: SandboxRig, ses_key: SeededKey) -> None:
    """That is no trouble to tell anybody of."""
    no_v6 = SETUP.replace("&& exec", "&& echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6 && exec")
    with (
        relay_host(ses, key=ses_key) as host,
        host.running(wrapper=(*NETWORK, no_v6)) as daemon,
    ):
        assert [] == daemon.status()["relay"]["not_listening"]
        (ready,) = daemon.events("daemon.ready")
        assert f"127.0.0.1:{host.port}" in ready["sockets"]
        assert "::1" not in ready["sockets"]
