"""
The one rule for what is loopback.

It is a rule on text, because it is asked for each connection of the relay: parsing the address
would take twenty times as long.
"""


def is_loopback(address: str) -> bool:
    """
    Whether an address can only be reached from this host.

    Args:
        address: An IPv4 or IPv6 address as the kernel and ``inet_ntop`` write it, also IPv4 within
            IPv6 (``::ffff:127.0.0.1``). Never a name.
    """
    return address.startswith(("127.", "::ffff:127.")) or address == "::1"
