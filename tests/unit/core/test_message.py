"""Texts for people: tests of `sesguard.core.message`."""

from sesguard.core.message import Message, message


def test_a_message_is_its_template_filled_in() -> None:
    """The English text; the template itself stays for the translators."""
    text = message("wrote {count} records to {path}", count=3, path="/x")
    assert "wrote 3 records to /x" == str(text)
    assert Message("wrote {count} records to {path}", {"count": 3, "path": "/x"}) == text


def test_a_message_without_parameters_is_left_alone() -> None:
    """Braces in it mean nothing."""
    assert "${x}" == str(message("${x}"))
