"""Masks secrets in texts that people see."""

import re
from typing import Final

MASK: Final = "**********"
_SECRET_WORDS: Final = "password|passwd|secret|token|key|credential|signature|sig"
_SECRET_OPTION: Final = re.compile(rf"([?&][^=&]*(?:{_SECRET_WORDS})[^=&]*=)[^&]*", re.I)


def mask_url(text: str) -> str:
    """A URL without its password and without secret options; other texts are returned unchanged.

    Everything between `//` and the last `@` counts as user and password: a password that is not encoded may contain any
    character.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        return text
    login, at, address = rest.rpartition("@")
    if at:
        user, colon, _ = login.partition(":")
        rest = f"{user}:{MASK}@{address}" if colon else f"{MASK}@{address}"
    return scheme + separator + _SECRET_OPTION.sub(rf"\g<1>{MASK}", rest)
