"""What --describe_format says of a chat format is what the format does."""

import json
from pathlib import Path
from typing import Any

import pytest
from script_loader import run_script
from template_toys import installed_templates, templates_in, toy_tokenizer
from tiny import make_tiny_tokenizer
from transformers import GenerationConfig

from instruction_modelling.chat.settings import ChatSettings
from instruction_modelling.inspection.format_description import describe_format
from instruction_modelling.inspection.format_words import format_lines
from instruction_modelling.inspection.template_variables import template_variables
from instruction_modelling.tokens.row_encoder import TemplateDefaults, row_encoder

TEMPLATES = {name: text for name, text in installed_templates().items() if "_training" not in name}


def described(template: str) -> tuple[list[str], dict[str, Any]]:
    """The lines and the values for a template on a small tokenizer."""
    tokenizer = toy_tokenizer(template)
    encoder = row_encoder(tokenizer, "tokenizer", 2048, defaults=TemplateDefaults.read(None))
    values = describe_format(encoder.chat_format, tokenizer)
    return list(format_lines(values)), json.loads(json.dumps(values))


def test_a_format_that_drops_earlier_thoughts() -> None:
    lines, found = described(TEMPLATES["qwen3.jinja"])
    assert lines[0] == (
        "An answer ends with `<|im_end|>`, at which generation stops; earlier turns are written otherwise "
        "once the chat goes on, so a row becomes several sequences where it has several turns."
    )
    # Without reasoning too: the empty thought before an answer is dropped.
    assert found["history"] == "rewritten"
    assert found["sequences"]["several turns"] == 2
    assert found["sequences"]["reasoning in several turns"] == 2
    assert found["openings"]["an answer"] == "<think>\n\n</think>\n\n"
    assert found["stop_tokens"][0]["token"] == "<|im_end|>"
    assert found["arguments"] == "either"
    assert {"name": "enable_thinking", "default": None, "changes_text": True} in found["variables"]
    assert set(found["outcomes"].values()) == {"trained"}
    assert not found["reads_date"]


def test_a_format_that_drops_earlier_reasoning_alone() -> None:
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.reasoning_content and loop.last %}"
        "<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    lines, found = described(template)
    assert lines[0] == (
        "An answer ends with `<|im_end|>`, at which generation stops; the reasoning of earlier turns is "
        "dropped once the chat goes on, so a row with reasoning in several turns becomes several sequences."
    )
    assert found["history"] == "without_reasoning"
    assert found["sequences"]["several turns"] == 1


def test_a_format_whose_ends_differ_by_kind_of_turn() -> None:
    lines, found = described(TEMPLATES["gptoss.jinja"])
    assert "<|end|>" not in {stop["token"] for stop in found["stop_tokens"]}
    assert [stop["token"] for stop in found["stop_tokens"]] == ["<|return|>", "<|call|>"]
    assert found["ends"]["a call"] == {"text": "<|call|>", "is_next_role": False}
    assert found["history"] == "rewritten"
    assert found["reads_date"]
    assert {"name": "reasoning_effort", "default": "medium", "changes_text": False} in found["variables"]
    assert found["outcomes"]["two calls at once"] == "dropped"
    assert any(line.startswith("The template leaves out a part of a chat with two calls") for line in lines)


def test_a_format_without_an_end_of_its_own() -> None:
    lines, found = described(TEMPLATES["glm4moe.jinja"])
    assert lines[0].startswith(
        "An answer has no end of its own: the model stops by writing `<|user|>`, the next role's token; "
    )
    assert found["ends"]["an answer"] == {"text": "<|user|>", "is_next_role": True}
    assert found["ends"]["a call"]["text"] == "<|observation|>"
    assert found["arguments"] == "object"


def test_a_format_without_any_end_is_given_one() -> None:
    template = (
        "{% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    lines, found = described(template)
    assert lines[0].startswith(
        "An answer ends by nothing that this format writes; give it an end with --end_of_turn and one of the "
    )
    assert found["user_end"] is None and "a user's turn ends with nothing" in lines
    lines, found = described(ChatSettings(end_of_turn="</s>").written_before(template))
    assert lines[0].startswith("An answer ends with `</s>`, at which generation stops; ")
    assert found["ends"]["an answer"] == {"text": "</s>", "is_next_role": False}
    assert [stop["token"] for stop in found["stop_tokens"]] == ["</s>"]


def test_a_history_that_is_trained_as_a_whole() -> None:
    lines, found = described(ChatSettings(history="whole").written_before(TEMPLATES["qwen3.jinja"]))
    assert lines[0].endswith(
        "every row is one sequence, the text of the whole chat, and a row of which that lacks something is "
        "refused (--history whole)."
    )
    assert found["history"] == "whole" and set(found["sequences"].values()) == {1}
    assert found["outcomes"]["reasoning in several turns"] == "dropped"
    assert found["user_end"] == "<|im_end|>" and "a user's turn ends with `<|im_end|>`" in lines


def test_a_format_of_alternating_turns_refuses_others() -> None:
    template = (
        "{{ bos_token }}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('only user and assistant by turns') }}{% endif %}"
        "{{ '[INST]' + m.content + '[/INST]' if m.role == 'user' else m.content + eos_token }}{% endfor %}"
    )
    lines, found = described(template)
    outcomes = found["outcomes"]
    assert outcomes["several turns"] == "trained"
    assert {name for name, outcome in outcomes.items() if outcome == "refused"} >= {
        "system text",
        "system text between turns",
        "two users in a row",
        "an assistant first",
    }
    assert outcomes["definitions of tools"] == outcomes["an answer with reasoning"] == "dropped"
    assert found["arguments"] == "none"
    assert found["reasoning_keys"] == []
    assert found["bos"] == {"token": "<BOS>", "written_by": "the template"}
    (refusal,) = [line for line in lines if line.startswith("The template refuses")]
    assert refusal.endswith("only user and assistant by turns")
    assert "system text, system text between turns, two users in a row, an assistant first" in refusal


def test_variables_come_with_the_defaults_that_the_template_shows() -> None:
    template = (
        "{% if thinking is not defined %}{% set thinking = true %}{% endif %}"
        "{% set effort = effort if effort is defined else 'high' %}{{ budget | default(12) }}{{ tone }}"
        "{% for m in messages %}{% set own = m.role %}{{ own }}{% endfor %}"
        "{% macro shown(x) %}{{ x }}{% endmacro %}{{ shown(thinking) }}{{ bos_token }}{{ tools }}"
    )
    assert template_variables(template, {"bos_token"}) == {
        "budget": 12,
        "effort": "high",
        "thinking": True,
        "tone": None,
    }
    assert template_variables("{% if %}", set()) == {}


def run(*arguments: object) -> int:
    """Runs the script without a file of rows."""
    with pytest.MonkeyPatch.context() as patch:
        return run_script(patch, "inspect_weights", "--describe_format", *arguments)


def test_the_script_needs_no_rows_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy_tokenizer(TEMPLATES["qwen3.jinja"]).save_pretrained(tmp_path / "model")
    GenerationConfig(eos_token_id=[3, 5]).save_pretrained(tmp_path / "model")
    made = tmp_path / "format.json"
    kwargs = '{"enable_thinking": false}'
    asked = ("--model_name_or_path", tmp_path / "model", "--chat_template_kwargs", kwargs)
    assert run(*asked, "--output_file", made) == 0
    out = capsys.readouterr().out
    values = json.loads(made.read_text())
    assert out.splitlines()[0] == values["sentence"]
    assert values["prompt"].endswith("<think>\n\n</think>\n\n")
    assert values["given_variables"] == {"enable_thinking": False}
    assert [(stop["id"], stop["why"]) for stop in values["stop_tokens"][1:]] == [
        (3, "the model's own"),
        (5, "the model's own"),
    ]


def test_the_papers_format_is_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tiny_tokenizer().save_pretrained(tmp_path)
    assert run("--tokenizer_name", tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "An answer ends with `</s>`, at which generation stops; earlier turns stay as the model wrote them, "
        "so every row is one sequence."
    )
    assert "BOS: <s>, written by the tokenizer; EOS: </s>" in lines


def test_options_of_rows_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--tokenizer_name", tmp_path, "--html", tmp_path / "a.html") == 2
    assert "--html: --describe_format reads no rows" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_every_installed_template_is_described(name: str) -> None:
    lines, found = described(TEMPLATES[name])
    assert lines[0].endswith(".")
    assert len(lines) > 10
    assert "trained" in found["outcomes"].values()


def test_some_published_templates_are_described(shared_data: Path) -> None:
    if not (shared_data / "templates").is_dir():
        pytest.skip("no folder of published templates beside the public data files")
    for template in list(templates_in(shared_data / "templates").values())[::12]:
        assert described(template)[0][0].endswith(".")


@pytest.mark.parametrize("template", ["{% if %}", "{{ 1 / 0 }}", "{{ messages.nothing.at_all }}", "no chat"])
def test_a_template_that_renders_nothing_is_described_too(template: str) -> None:
    lines, found = described(template)
    assert lines[0].startswith("No chat can be trained with this chat format: ")
    assert "trained" not in found["outcomes"].values()
