"""Texts of every script: where their words are, and which of their characters say nothing.

White space parts the words of most scripts. Where it does not, `set_apart` puts it in:

- a Chinese character, a kana, a bopomofo or Yi letter, a letter of another script that no dictionary of ICU
  knows (Javanese, Balinese, Tai Tham, ...) is a word of its own with the marks on it, and so is a wide or
  half-width punctuation mark, as word processors count them;
- Thai, Lao, Khmer and Burmese are cut into words by the dictionaries of ICU;
- Tibetan is cut into syllables at its tsheg.

White space between two letters of the second kind is left out before they are cut, so a text and the same
text with spaces put in have the same words. Korean, and all other scripts, are left as they are.

Where a limit is a number of words (overlaps: a text of 8 words, of 4), `by_dictionary` cuts Chinese and
Japanese into ICU's words too, since 8 characters say as much as 5 English words.

Properties of characters are those of the Unicode database that the `regex` library holds."""

import re
import unicodedata
from typing import Literal

import regex

_CHINESE_OR_KANA = r"[[\p{scx=Hani}\p{scx=Hira}\p{scx=Kana}]--[\p{P}\p{S}\p{M}\p{Z}]]"
_OF_NO_DICTIONARY = (
    r"[[\p{scx=Bopo}\p{scx=Yiii}\p{Tang}\p{Nshu}\p{Kits}\p{Java}\p{Bali}\p{Lana}\p{Talu}\p{Tale}\p{Tavt}"
    rf"\p{{Ahom}}]--[{_CHINESE_OR_KANA}\p{{P}}\p{{S}}\p{{M}}\p{{Z}}]]"
)
_ONE_BY_ONE = rf"[{_CHINESE_OR_KANA}{_OF_NO_DICTIONARY}]"
_WIDE_MARKS = r"[[\p{ea=W}\p{ea=F}\p{ea=H}]&&\p{P}]"
_IN_DICTIONARIES = r"[\p{Thai}\p{Laoo}\p{Khmr}\p{Mymr}]"
# All letters that are looked for lie here, and the curly quotes and dashes of English texts do not.
_FAR_FROM_LATIN = re.compile("[\u0e00-\u1fff\u2e80-\U0010ffff]")
_BEYOND_LATIN = re.compile("[\u0370-\u1fff\u2c00-\U0010ffff]")
_NOT_LATIN = regex.compile(r"(?V1)[\p{L}--\p{Latin}]+")
_LETTERS = regex.compile(rf"(?V1)[{_ONE_BY_ONE}{_IN_DICTIONARIES}\p{{Tibt}}]+")


def _runs(letters: str) -> regex.Pattern[str]:
    """Match runs of letters, and the marks on the last of them."""
    return regex.compile(rf"(?V1)([{letters}{_WIDE_MARKS}]+)([\p{{M}}\u200c\u200d]*)")


def _stretches(letters: str) -> regex.Pattern[str]:
    """Match letters, their marks, and white space between two of them."""
    letter = rf"{letters}\p{{M}}*"
    return regex.compile(rf"(?V1){letter}(?:[\s\u200c\u200d\u2060]*{letter})*")


_UNITS, _STRETCHES = _runs(_ONE_BY_ONE), _stretches(_IN_DICTIONARIES)
_FEWER_UNITS = _runs(_OF_NO_DICTIONARY)
_MORE_STRETCHES = _stretches(f"[{_CHINESE_OR_KANA}{_IN_DICTIONARIES}]")
_CHINESE, _KANA = regex.compile(r"\p{Han}"), regex.compile(r"[\p{Hira}\p{Kana}]")
_BETWEEN = regex.compile(r"[\s\u200c\u200d\u2060]+")
# The tshegs of Tibetan, and the zero-width space, part words and are seen by no `split`.
_PARTING = str.maketrans(dict.fromkeys("\u0f0b\u0f0c\u200b", " "))
_HAS_PARTING = re.compile("[\u0f0b\u0f0c\u200b]")
_INVISIBLE = regex.compile(r"\p{Default_Ignorable_Code_Point}+")
# Points of Arabic and Hebrew, and the stroke that lengthens an Arabic word.
_POINTS = regex.compile(r"(?V1)[[[\p{scx=Arab}\p{scx=Hebr}]&&\p{Mn}--[\u0300-\u036f]]\u0640]+")
_WIDE_FORMS = regex.compile(r"[\u3000\uff01-\uffee]+")


def set_apart(text: str, by_dictionary: bool = False) -> str:
    """Return the text with a space on both sides of each word of a script that writes without spaces (module
    docstring); any other text unchanged."""
    if text.isascii() or not (_FAR_FROM_LATIN.search(text) and _LETTERS.search(text)):
        return text
    if _HAS_PARTING.search(text):
        text = text.translate(_PARTING)
    units, stretches = (_FEWER_UNITS, _MORE_STRETCHES) if by_dictionary else (_UNITS, _STRETCHES)
    return stretches.sub(_dictionary_words, units.sub(_single_words, text))


def _single_words(run: regex.Match[str]) -> str:
    return f" {' '.join(run[1])}{run[2]} "


def _dictionary_words(stretch: regex.Match[str]) -> str:
    from icu4py.breakers import WordBreaker

    return f" {' '.join(WordBreaker(_BETWEEN.sub('', stretch[0]), 'en'))} "


def unspaced_letters(text: str) -> int:
    """Return how many characters of a text belong to scripts that write without spaces."""
    if text.isascii() or not _FAR_FROM_LATIN.search(text):
        return 0
    return sum(map(len, _LETTERS.findall(text)))


def letters_not_latin(text: str) -> int:
    """Return how many letters of a text are of another script than the Latin one."""
    if text.isascii() or not _BEYOND_LATIN.search(text):
        return 0
    return sum(map(len, _NOT_LATIN.findall(text)))


def main_script(text: str) -> Literal["spaced", "Chinese", "Japanese", "other"]:
    """Return what a text is mainly written in: a script with spaces; else Chinese characters, these with
    kana, or another script without spaces. A third of the letters decides, since one Chinese character says
    as much as several Latin letters."""
    unspaced = unspaced_letters(text)
    if not unspaced or 3 * unspaced < sum(map(str.isalpha, text)):
        return "spaced"
    chinese, kana = len(_CHINESE.findall(text)), len(_KANA.findall(text))
    if 2 * (chinese + kana) < unspaced:
        return "other"
    return "Japanese" if 10 * kana > unspaced else "Chinese"


def without_invisible(text: str) -> str:
    """Return the text without what no reader sees or needs: joiners, soft hyphens, variation selectors and
    the other characters that Unicode calls ignorable, and the points of Arabic and Hebrew, which most writers
    leave out, with the stroke that lengthens Arabic words. A zero-width space becomes a space.

    To be called on composed text (NFC or NFKC): an Arabic letter with hamza or madda is then one character,
    and stays."""
    if text.isascii():
        return text
    return _POINTS.sub("", _INVISIBLE.sub("", text.replace("\u200b", " ")))


def plain_width(text: str) -> str:
    """Return the text with full-width and half-width forms as the ordinary characters (NFKC would also make
    5² a 52)."""
    if text.isascii():
        return text
    return _WIDE_FORMS.sub(lambda forms: unicodedata.normalize("NFKC", forms[0]), text)
