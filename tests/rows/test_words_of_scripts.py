"""Words of every script: set apart where no space parts them, and the same with and without spaces."""

import random
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instruction_modelling.rows.scripts import (
    main_script,
    plain_width,
    set_apart,
    unspaced_letters,
    without_invisible,
)

WORDS = {
    "Thai": "เมือง หลวง ของ ประเทศไทย คือ อะไร และ อยู่ ที่ไหน",
    "Lao": "ພາສາ ລາວ ເປັນ ພາສາ ຂອງ ຄົນ ລາວ",
    "Khmer": "ខ្ញុំ ឈ្មោះ សុខ",
    "Burmese": "မြန်မာနိုင်ငံ သည် အရှေ့တောင် အာရှ",
    "Chinese": "今 天 天 气 很 好 ， 我 们 去 公 园 。",
    "Japanese": "デ ー タ を 見 る 。",
    "Tibetan": "བོད ཡིག ནི བོད ཀྱི སྐད ཡིག",
    "Javanese": "ꦧꦱ ꦗꦮ",
}


@pytest.mark.parametrize("language", ["Thai", "Lao", "Khmer", "Chinese", "Japanese"])
def test_words_are_found_where_no_space_parts_them(language: str) -> None:
    words = WORDS[language].split()
    assert set_apart("".join(words)).split() == words


@pytest.mark.parametrize("language", WORDS)
def test_spaces_put_between_words_or_letters_change_no_word(language: str) -> None:
    draw = random.Random(3)
    separator = "\u0f0b" if language == "Tibetan" else ""
    words = [draw.choice(WORDS[language].split()) for _ in range(60)]
    plain = set_apart(separator.join(words)).split()
    assert len(plain) >= 40
    assert set_apart(" ".join(words)).split() == plain
    partly = "".join(word + draw.choice([separator, " ", "\u200b"]) for word in words)
    assert set_apart(partly).split() == plain


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("印度的首都是什么？", "印度 的 首都 是 什么 ？"),
        ("東京都に住む。データ", "東京 都 に 住む 。 データ"),
        ("用Python写", "用 Python 写"),
        ("ประเทศไทยคืออะไร", "ประเทศไทย คือ อะไร"),
        ("ꦧꦱ", "ꦧ ꦱ"),
    ],
)
def test_chinese_and_japanese_words_are_a_dictionarys_where_a_limit_counts_them(
    text: str, words: str
) -> None:
    assert set_apart(text, by_dictionary=True).split() == words.split()
    assert set_apart(" ".join(text) if "P" not in text else text, by_dictionary=True).split() == words.split()


def test_a_mark_stays_on_its_letter() -> None:
    assert set_apart("か\u3099き").split() == ["か\u3099", "き"]
    assert set_apart("葛\U000e0100飾").split() == ["葛\U000e0100", "飾"]


def test_tibetan_is_cut_at_its_tsheg() -> None:
    assert set_apart("བོད་ཡིག་ནི་").split() == ["བོད", "ཡིག", "ནི"]


def test_latin_words_and_numbers_within_are_words() -> None:
    assert set_apart("用Python3写，共100行").split() == ["用", "Python3", "写", "，", "共", "100", "行"]
    assert set_apart("ใช้Python").split() == ["ใช้", "Python"]


@pytest.mark.parametrize(
    "text",
    [
        "Don't — “quoted”, naïve café 3.5 % … ★ 🎉👩‍👩‍👧",
        "भारत की राजधानी क्या है",
        "한국어는 조사가 있습니다",
        "كِتَابٌ جَدِيدٌ",
        "Tiếng Việt",
        "ＡＢＣ，ＤＥＦ",
    ],
)
def test_scripts_with_spaces_are_left_as_they_are(text: str) -> None:
    assert set_apart(text) is text and unspaced_letters(text) == 0


@given(st.text())
def test_no_character_but_spaces_is_added_or_lost(text: str) -> None:
    def bare(text: str) -> str:
        return "".join(c for c in text if not c.isspace() and c not in "\u200b\u200c\u200d\u2060\u0f0b\u0f0c")

    assert bare(set_apart(text)) == bare(text)


def test_what_no_reader_sees_is_left_out() -> None:
    # A joiner, a soft hyphen, a variation selector and a mark of direction; a zero-width space is a space.
    assert without_invisible("می\u200cخواهم soft\u00adware ❤\ufe0f \u200ea\u200bb") == (
        "میخواهم software ❤ a b"
    )
    assert without_invisible("\ufeff👩\u200d👧") == "👩👧"


def test_points_of_arabic_and_hebrew_are_left_out_and_marks_of_others_kept() -> None:
    assert without_invisible("كِتَابٌ مُحَمَّد جديـــد") == "كتاب محمد جديد"
    assert without_invisible(unicodedata.normalize("NFC", "כִּתֵב שָׁלוֹם")) == "כתב שלום"
    # Hamza and madda are part of their letter once they are composed.
    assert without_invisible("أكل آمن مسؤول") == "أكل آمن مسؤول"
    for kept in ("हिन्दी", "தமிழ்", "বাংলা", "x\u0304", "i\u0307"):
        assert without_invisible(kept) == kept


def test_full_and_half_width_forms_become_ordinary_ones() -> None:
    assert plain_width("ＡＢ１２，５\u3000ｶﾞ 5² ½") == "AB12,5 ガ 5² ½"


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Tokyo is the capital of 日本.", "spaced"),
        ("भारत", "spaced"),
        ("한국어", "spaced"),
        ("", "spaced"),
        ("42", "spaced"),
        ("首都是北京。", "Chinese"),
        ("用Python打印列表", "Chinese"),
        ("首都は東京です。", "Japanese"),
        ("ประเทศไทย", "other"),
        ("བོད་ཡིག", "other"),
    ],
)
def test_the_main_script_of_a_text(text: str, script: str) -> None:
    assert main_script(text) == script
