"""
The contract of a key provider, as tests.

Subclass `KeyProviderContract` in a test module and give the three fixtures:

    class TestMyProvider(KeyProviderContract):
        @pytest.fixture
        def provider(self) -> KeyProvider: ...

        @pytest.fixture
        def fresh(self) -> KeyProvider: ...

        @pytest.fixture
        def other_provider(self) -> KeyProvider: ...
"""

import os
from typing import Final

import pytest

from sesguard.errors import VaultTampered, WrongKey
from sesguard.vault.providers.interface import KeyProvider

CONTEXT: Final = {"purpose": "credential-version", "vault": "00ff", "version": "7"}
OTHER_CONTEXTS: Final[tuple[dict[str, str], ...]] = (
    {},
    {**CONTEXT, "version": "8"},
    {**CONTEXT, "more": ""},
    {"purpose": "credential-version", "vault": "00ff"},
    {"purpose": "credential-version", "vault": "7", "version": "00ff"},
    {name: value.upper() for name, value in CONTEXT.items()},
)


class KeyProviderContract:
    """What a key provider promises, one test a promise."""

    @pytest.fixture
    def provider(self) -> KeyProvider:
        """Override it: a provider that has its key."""
        raise NotImplementedError

    @pytest.fixture
    def fresh(self) -> KeyProvider:
        """Override it: the same as `provider`, as another process has it: nothing loaded."""
        raise NotImplementedError

    @pytest.fixture
    def other_provider(self) -> KeyProvider:
        """Override it: a provider of the same kind that has another key."""
        raise NotImplementedError

    @pytest.fixture
    def data_key(self) -> bytes:
        """A data key."""
        return os.urandom(32)

    @pytest.fixture
    def wrapped(self, provider: KeyProvider, data_key: bytes) -> bytes:
        """The data key, wrapped for `CONTEXT`."""
        return provider.wrap(data_key, CONTEXT)

    def test_gives_back_what_it_wrapped(
        self, provider: KeyProvider, data_key: bytes, wrapped: bytes
    ) -> None:
        """Unwrapping gives the data key, as often as it is asked."""
        assert data_key == provider.unwrap(wrapped, CONTEXT)
        assert data_key == provider.unwrap(wrapped, CONTEXT)

    def test_order_of_the_context_does_not_matter(
        self, provider: KeyProvider, data_key: bytes, wrapped: bytes
    ) -> None:
        """A context is a map: its order is not part of it."""
        assert data_key == provider.unwrap(wrapped, dict(reversed(CONTEXT.items())))

    def test_does_not_show_the_data_key(self, data_key: bytes, wrapped: bytes) -> None:
        """No eight bytes of the data key are in what is stored."""
        assert not any(data_key[start : start + 8] in wrapped for start in range(25))

    @pytest.mark.parametrize("context", OTHER_CONTEXTS)
    def test_refuses_another_context(
        self, provider: KeyProvider, wrapped: bytes, context: dict[str, str]
    ) -> None:
        """A data key is bound to the context that it was wrapped for."""
        with pytest.raises(VaultTampered):
            provider.unwrap(wrapped, context)

    def test_refuses_a_change_at_every_byte(self, provider: KeyProvider, wrapped: bytes) -> None:
        """One changed bit anywhere is refused."""
        for index in range(len(wrapped)):
            changed = bytearray(wrapped)
            changed[index] ^= 1 << index % 8
            with pytest.raises((VaultTampered, WrongKey)):
                provider.unwrap(bytes(changed), CONTEXT)

    def test_refuses_every_truncation_and_extension(
        self, provider: KeyProvider, wrapped: bytes
    ) -> None:
        """Data that was cut short, down to nothing, or made longer is refused."""
        for length in range(len(wrapped)):
            with pytest.raises((VaultTampered, WrongKey)):
                provider.unwrap(wrapped[:length], CONTEXT)
        with pytest.raises((VaultTampered, WrongKey)):
            provider.unwrap(wrapped + b"\0", CONTEXT)

    def test_says_when_another_key_wrapped_it(
        self, other_provider: KeyProvider, wrapped: bytes
    ) -> None:
        """A wrong key is not mistaken for tampering."""
        with pytest.raises(WrongKey):
            other_provider.unwrap(wrapped, CONTEXT)

    def test_loading_and_ensuring_the_key_may_be_repeated(
        self, provider: KeyProvider, data_key: bytes, wrapped: bytes
    ) -> None:
        """A key that is there is kept: what was wrapped before still opens."""
        provider.load()

        assert not provider.ensure_key()
        assert data_key == provider.unwrap(wrapped, CONTEXT)

    def test_describes_what_it_is_worth(self, provider: KeyProvider) -> None:
        """It has a name, and says both what it protects against and what it does not."""
        description = provider.describe()

        assert provider.name
        assert description.protects
        assert description.does_not_protect
        assert all(description.protects + description.does_not_protect)

    def test_does_not_show_its_key(self, provider: KeyProvider) -> None:
        """Its text form is that of a plain object, without a state."""
        provider.load()

        assert object.__repr__(provider) == repr(provider)

    def test_next_key_opens_what_either_wrapped(
        self, provider: KeyProvider, fresh: KeyProvider, data_key: bytes, wrapped: bytes
    ) -> None:
        """While the key is being changed both are there, here and for whoever loads it then."""
        provider.prepare_next()
        by_next = provider.wrap(data_key, CONTEXT)

        fresh.load()

        assert [data_key] * 2 == [provider.unwrap(each, CONTEXT) for each in (wrapped, by_next)]
        assert [data_key] * 2 == [fresh.unwrap(each, CONTEXT) for each in (wrapped, by_next)]

    def test_preparing_again_takes_a_key_that_is_in_use(
        self, provider: KeyProvider, fresh: KeyProvider, data_key: bytes
    ) -> None:
        """An interrupted change goes on with the key that it made, once the vault is under it."""
        assert provider.prepare_next()
        by_next = provider.wrap(data_key, CONTEXT)
        assert not fresh.prepare_next(by_next)
        fresh.promote_next()

        assert data_key == fresh.unwrap(by_next, CONTEXT)

    def test_next_key_that_nothing_uses_is_replaced(
        self, provider: KeyProvider, fresh: KeyProvider, data_key: bytes, wrapped: bytes
    ) -> None:
        """A key of a change that was given up, which may have leaked since, is never taken."""
        provider.prepare_next()
        given_up = provider.wrap(data_key, CONTEXT)
        assert fresh.prepare_next(wrapped)
        assert data_key == fresh.unwrap(wrapped, CONTEXT)
        fresh.promote_next()

        with pytest.raises(WrongKey):
            fresh.unwrap(given_up, CONTEXT)

    def test_old_key_is_gone_after_the_change(
        self, provider: KeyProvider, fresh: KeyProvider, data_key: bytes, wrapped: bytes
    ) -> None:
        """After the promotion only what the new key wrapped opens."""
        provider.prepare_next()
        by_next = provider.wrap(data_key, CONTEXT)
        provider.promote_next()
        provider.promote_next()

        for each in (provider, fresh):
            assert data_key == each.unwrap(by_next, CONTEXT)
            with pytest.raises(WrongKey):
                each.unwrap(wrapped, CONTEXT)
