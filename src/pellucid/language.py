"""Messages in English and Chinese (gettext).

Every text that a user reads is written in English in the code, inside ``_()``, and looked up in
``locale/zh`` when the language is Chinese. ``python -m pellucid.language`` is not needed at run time: the
catalogue is compiled by ``make messages`` and a test fails when a message has no Chinese.
"""

import gettext
import locale
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pellucid.errors import PellucidError

LANGUAGES = ("en", "zh")
_LOCALE = Path(__file__).parent / "locale"
_catalogue: gettext.NullTranslations | None = None


def _(message: str) -> str:
    """Return ``message`` in the user's language. Format *after* translating: ``_("{n} steps").format(n=3)``."""
    if _catalogue is None:
        use(_from_environment())
    assert _catalogue is not None
    return _catalogue.gettext(message)


# For what a data file says: `_` is left to plain strings, which tools/messages.py can collect.
translated = _


def use(language: str) -> None:
    """Speak ``language`` ("en" or "zh", a locale name such as "zh_CN.UTF-8" will do) from now on.

    Raises:
        PellucidError: when the language is neither English nor Chinese.
    """
    global _catalogue
    short = language.replace("-", "_").split("_")[0].split(".")[0].lower()
    if short not in LANGUAGES:
        raise PellucidError(
            f"Pellucid speaks English and Chinese, not {language!r}.",
            "--language",
            "Use --language en or --language zh.",
        )
    _catalogue = gettext.translation("pellucid", _LOCALE, languages=[short], fallback=True)


@contextmanager
def speaking(language: str) -> Iterator[None]:
    """Speak another language for a while, as `use` does."""
    global _catalogue
    before = _catalogue
    use(language)
    try:
        yield
    finally:
        _catalogue = before


def _from_environment() -> str:
    """The language of the first of LANGUAGE, LC_ALL, LC_MESSAGES, LANG that names one we speak; else English."""
    for variable in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        for name in os.environ.get(variable, "").split(":"):
            if name[:2].lower() in LANGUAGES:
                return name[:2].lower()
        if os.environ.get(variable):
            return "en"  # the user chose something: C, POSIX or a language that we do not speak
    return "zh" if (locale.getlocale()[0] or "").lower().startswith(("zh", "chinese")) else "en"
