"""Prompts of chats by name, for --chat_formatting_function: messages in, text up to where the answer begins
out.

A model tuned with this project needs none of them: its chat format is saved with it.
"""

from collections.abc import Sequence

Messages = Sequence[dict[str, str]]


def create_prompt_with_tulu_chat_format(
    messages: Messages, bos: str = "<s>", eos: str = "</s>", add_bos: bool = True
) -> str:
    """Return the paper's format: a role's header on a line of its own, and EOS behind an answer.

    Raises:
        ValueError: a role is none of system, user and assistant.
    """
    text = bos if add_bos else ""
    for message in messages:
        role, content = message["role"], message["content"].strip()
        if role not in ("system", "user", "assistant"):
            raise ValueError(f"the Tülu format has no role {role!r}: it has system, user and assistant")
        text += f"<|{role}|>\n{content}{eos if role == 'assistant' else ''}\n"
    return text + "<|assistant|>\n"


def create_prompt_with_llama2_chat_format(
    messages: Messages, bos: str = "<s>", eos: str = "</s>", add_bos: bool = True
) -> str:
    """Return the format of Llama-2-Chat: [INST] around what a user says, the system prompt within the
    first.

    Raises:
        ValueError: user and assistant do not take turns.
    """
    system = ""
    if messages and messages[0]["role"] == "system":
        system = f"<<SYS>>\n{messages[0]['content']}\n<</SYS>>\n\n"
        messages = messages[1:]
    text = ""
    for number, message in enumerate(messages):
        if message["role"] != ("assistant" if number % 2 else "user"):
            raise ValueError("user and assistant must take turns in the Llama-2-Chat format")
        if message["role"] == "user":
            # The first BOS is the tokenizer's to write.
            opening = bos if add_bos or number else ""
            text += f"{opening}[INST] {system if number == 0 else ''}{message['content'].strip()} [/INST]"
        else:
            text += f" {message['content'].strip()} {eos}"
    return text


def create_prompt_with_xwin_chat_format(
    messages: Messages, bos: str = "<s>", eos: str = "</s>", add_bos: bool = True
) -> str:
    """Return the format of Xwin-LM, Vicuna's of version 1.1 (model card of Xwin-LM-70B-V0.1): one line of
    USER: and ASSISTANT: behind a fixed sentence, which a system message replaces.

    Raises:
        ValueError: a role is none of system, user and assistant.
    """
    opening = (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
        "helpful, detailed, and polite answers to the user's questions."
    )
    if messages and messages[0]["role"] == "system":
        opening, messages = messages[0]["content"], messages[1:]
    text = (bos if add_bos else "") + opening + " "
    for message in messages:
        if message["role"] not in ("user", "assistant"):
            raise ValueError(f"the Xwin format has no role {message['role']!r} behind its first message")
        user = message["role"] == "user"
        text += f"USER: {message['content']} " if user else f"ASSISTANT: {message['content']}{eos}"
    return text + "ASSISTANT:"


def create_prompt_with_zephyr_chat_format(
    messages: Messages, bos: str = "<s>", eos: str = "</s>", add_bos: bool = True
) -> str:
    """Return the format of Zephyr (model card of zephyr-7b-beta): a role's header on a line of its own, and
    EOS behind every message.

    Raises:
        ValueError: a role is none of system, user and assistant.
    """
    text = bos if add_bos else ""
    for message in messages:
        if message["role"] not in ("system", "user", "assistant"):
            raise ValueError(f"the Zephyr format has no role {message['role']!r}")
        text += f"<|{message['role']}|>\n{message['content']}{eos}\n"
    return text + "<|assistant|>\n"
