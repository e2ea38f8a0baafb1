"""Every turn of today's chats is trained as the model has to write it, or rightly refused."""

from collections import Counter
from pathlib import Path

import pytest
from chat_sweep import RIGHT, WRONG, WRONGLY_REFUSED, Outcome, rows_file, sweep_template
from template_toys import installed_templates, templates_in

from instruction_modelling.rows.conversations import ConversationFile

# Those for training differ from the others in that they say what is the assistant's.
TEMPLATES = {name: text for name, text in installed_templates().items() if "_training" not in name}
EVERY = 6


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> ConversationFile:
    return rows_file(tmp_path_factory.mktemp("rows"))


def failures(outcomes: list[Outcome]) -> str:
    """What is wrong among these, a line each."""
    lines = [
        f"{found.template}, {found.chat}: {found.verdict}: {found.reason}"
        for found in outcomes
        if found.verdict in (WRONG, WRONGLY_REFUSED)
    ]
    return "\n".join(lines)


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_turns_of_installed_templates_are_what_the_model_has_to_write(
    name: str, file: ConversationFile
) -> None:
    outcomes = sweep_template(name, TEMPLATES[name], file)
    assert not failures(outcomes), failures(outcomes)
    assert sum(found.compared for found in outcomes) >= 10


def test_turns_of_many_published_templates_are_what_the_model_has_to_write(
    shared_data: Path, file: ConversationFile
) -> None:
    folder = shared_data / "templates"
    if not folder.is_dir():
        pytest.skip("no folder of published templates beside the public data files")
    some = list(templates_in(folder).items())[::EVERY]
    outcomes = [found for name, template in some for found in sweep_template(name, template, file)]
    assert not failures(outcomes), failures(outcomes)
    assert sum(found.compared for found in outcomes) > 1_000
    assert Counter(found.verdict for found in outcomes)[RIGHT] > 600
