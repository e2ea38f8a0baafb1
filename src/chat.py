"""Talk with a tuned model on the terminal.

    python src/chat.py output/im
    python src/chat.py output/im --prompt "What is a rainbow?"
    cat question.txt | python src/chat.py output/im --prompt -

A run's folder is asked in the chat format it was trained in and stops at its end tokens. The whole
conversation is in front of each answer; /help says the commands. Runs on the GPU if there is one."""

import logging
import sys

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import run_main
from instruction_modelling.generation.talk import COMMANDS, Talk, TalkOptions, read_prompt, shown, talk
from instruction_modelling.inputs import missing_inputs
from instruction_modelling.quiet import silence_libraries


def main() -> int:
    """Read the options; answer one question, or talk until the user ends it."""
    options = parse_options(TalkOptions, also_check=missing_inputs)
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    silence_libraries()
    terminal = sys.stdout.isatty()

    def show(text: str) -> None:
        print(shown(text) if terminal else text, end="", flush=True)

    conversation = Talk(options, show)
    if options.prompt is not None:
        answer = conversation.ask(read_prompt(options.prompt))
        print()
        if not answer.stopped:
            print(f"(its {answer.tokens} tokens ran out: --max_new_tokens)", file=sys.stderr)
        return 0
    print(f"{options.model}, {conversation.engine.chat_format}. {COMMANDS}", file=sys.stderr)
    conversation.engine.load()
    talk(conversation, lambda: input("\n> "))
    return 0


if __name__ == "__main__":
    run_main(main)
