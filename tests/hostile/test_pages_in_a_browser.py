"""What a model, a row or a file's name writes stands in the pages as text: a real browser runs none of it."""

import html
import json
import re
from pathlib import Path

import pytest
from browser import chromium, needs_browser
from report_fixtures import write_losses, write_responses, write_run
from script_loader import run_script
from tiny import make_tiny_tokenizer

pytestmark = [needs_browser, pytest.mark.slow]
PAGES = Path(__file__).resolve().parents[1] / "support" / "pages"
DEED = (PAGES / "harm.js").read_text(encoding="utf-8").strip()
HOSTILE = (
    f"<script>{DEED}</script>",
    f"</pre></td></table></style></title></textarea><script>{DEED}</script>",
    f'<img src=x onerror="{DEED}">',
    f"<svg/onload={DEED}>",
    f'"><details open ontoggle={DEED}>',
    f"' autofocus onfocus={DEED} x='",
    f'<a href="javascript:{DEED}" id=pressed>press</a>',
    f"<iframe srcdoc='&lt;script&gt;parent.{DEED}&lt;/script&gt;'></iframe>",
    "<meta http-equiv=refresh content='0;url=about:blank'>",
    "<base href='//example.com/'><style>body{display:none}</style>",
    "{{ 7 * 191 }} {% for x in range(9) %}{% endfor %} ${7*191} #{7*191}",
    "\u202egnp.exe\u2066 \u200bhidden\u200b \ufeff",
    "<!-- --><![CDATA[ ]]><?php ?>&lt;script&gt;&#x3c;script&#x3e;",
    "]]>--></script><plaintext>",
)


def harmless(page: Path, folder: Path, texts: tuple[str, ...], strip_policy: bool) -> str:
    """Open a page, with or without its own policy against scripts; the page as the browser has it."""
    text = page.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    if strip_policy:
        text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    # A click on every link, and a sign that the browser runs scripts at all.
    clicks = (PAGES / "click_links.js").read_text(encoding="utf-8")
    text = text.replace("</body>", f"<script>{clicks}</script></body>")
    shown = folder / "shown.html"
    shown.write_text(text, encoding="utf-8")
    dom = chromium(folder, "--virtual-time-budget=2000", "--dump-dom", shown.as_uri())
    assert ('data-ran="yes"' in dom) is strip_policy
    assert "data-harmed=" not in dom.split(">", 3)[1] + dom.split(">", 3)[2]
    assert "</footer>" in dom or "</body>" in dom
    for tag in ("iframe", "svg onload", "details open ontoggle", "plaintext", "base"):
        assert f"<{tag}" not in dom.lower()
    assert not re.search(r"<[^>]* on(error|load|focus|toggle)=", dom)
    assert not re.search(r'<[a-z]+ [^>]*href="javascript:', dom)
    words = html.unescape(re.sub(r"<[^>]*>", "", dom))
    assert "{{ 7 * 191 }}" in words and " 1337 {" not in words
    for sample in texts:
        assert " ".join(sample.split()) in " ".join(words.split()), sample
    return dom


@pytest.mark.parametrize("strip_policy", [False, True])
def test_a_report_of_hostile_answers_runs_nothing(tmp_path: Path, strip_policy: bool) -> None:
    name = "<b onmouseover=alert(1)>it"
    count = len(HOSTILE)
    runs = [
        write_run(tmp_path / f"{arm} {name}", arm, data={"path": f"{name}.jsonl"}) for arm in ("IT", "IM")
    ]
    for folder in runs:
        write_losses(folder, "test", [1.0 + n for n in range(count)], user=2.0)
        write_losses(folder, "train", [1.0, 2.0])
        write_responses(folder, list(HOSTILE), ["red"] * count, instruction=HOSTILE[0])
    with pytest.MonkeyPatch.context() as patch:
        flags = ("--title", HOSTILE[2], "--note", HOSTILE[1], "--output_dir", tmp_path)
        assert run_script(patch, "report", "--runs", *runs, *flags) == 0
    harmless(tmp_path / "report.html", tmp_path, HOSTILE[:3], strip_policy)


@pytest.mark.parametrize("strip_policy", [False, True])
def test_a_page_of_hostile_rows_runs_nothing(tmp_path: Path, strip_policy: bool) -> None:
    make_tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    rows = tmp_path / "<img src=x onerror=alert(1)>.jsonl"
    chats = [
        {"id": text, "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text}]}
        for text in HOSTILE
    ]
    rows.write_text("".join(json.dumps(chat) + "\n" for chat in chats), encoding="utf-8")
    page = tmp_path / "page.html"
    with pytest.MonkeyPatch.context() as patch:
        flags = ("--num_examples", len(HOSTILE), "--html", page)
        tokenizer = ("--tokenizer_name", tmp_path / "tokenizer")
        assert run_script(patch, "inspect_weights", *tokenizer, "--train_file", rows, *flags) == 0
    harmless(page, tmp_path, (), strip_policy)
