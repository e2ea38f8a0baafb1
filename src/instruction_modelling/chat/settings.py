"""What a run says of its chats that no template can: where turns end, and how histories are trained.

It is kept as a comment in front of the template, which writes nothing, so that whoever loads the saved model
reads its chats as they were trained."""

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

History = Literal["as_written", "whole"]

_COMMENT = re.compile(r"\{#- instruction_modelling (\{.*?\}) -?#\}\n?")


@dataclass(frozen=True)
class ChatSettings:
    """How the chats of a template are trained."""

    end_of_turn: str | None = None
    """The token appended to each of the assistant's turns, where the template ends them by nothing."""
    history: History | None = None
    """`as_written` (None: the same): each turn behind the text that the model is asked with; `whole`: all
    turns in the text of the whole conversation."""

    @classmethod
    def of(cls, template: str) -> "ChatSettings":
        """Return the settings that stand in front of a template; the usual ones where none do."""
        found = _COMMENT.search(template)
        return cls(**json.loads(found[1])) if found else cls()

    def written_before(self, template: str) -> str:
        """Return a template with these settings in front, which come before those that stand there."""
        before = given_settings(ChatSettings.of(template))
        settings = {**before, **given_settings(self)}
        bare = _COMMENT.sub("", template)
        if not settings:
            return bare
        # "#}" would end the comment.
        text = json.dumps(settings, ensure_ascii=False, sort_keys=True).replace("#", "\\u0023")
        return f"{{#- instruction_modelling {text} #}}\n{bare}"


def given_settings(settings: ChatSettings) -> dict[str, Any]:
    """Return what is set, by name."""
    return {name: value for name, value in vars(settings).items() if value is not None}
