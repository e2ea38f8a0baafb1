"""Weights in the data that change nothing: weights multiply, and what they multiply is 0."""

from instruction_modelling.chat.spans import SpanKind
from instruction_modelling.progress import counted
from instruction_modelling.rows.conversations import Conversation, ConversationFile
from instruction_modelling.tokens.weights import WeightPolicy

_KIND_OF_ROLE = {"system": SpanKind.SYSTEM, "user": SpanKind.USER, "tool": SpanKind.TOOL}


def idle_weights(file: ConversationFile, policy: WeightPolicy, weighs_all: bool = False) -> str | None:
    """Return, in words, which weights of a file's rows and messages have no effect; None where all have one.

    Args:
        weighs_all: every token weighs 1 (blocks of language modelling without a weight flag).
    """
    if weighs_all:
        rows = [row for row in file.conversations if _says_weights(row)]
        if not rows:
            return None
        return (
            f"weights without effect: {file.path} has them on {counted(len(rows), 'row')} "
            f"(first: {file.place(rows[0])}), but under --use_lm_modelling every token weighs 1; give a "
            "weight flag too, such as --response_loss_weight 1, and weights hold across the blocks"
        )
    table = policy.by_kind()
    found: dict[str, list[Conversation]] = {}
    for row in file.conversations:
        for message in row.messages:
            kind = _KIND_OF_ROLE.get(message.role)
            if not message.says_weight or kind is None:
                continue
            released = policy.mask_style == "released"
            if not (policy.instruction if released else table[kind] or _ends(message.role, policy)):
                found.setdefault(message.role, []).append(row)
    if not found:
        return None
    named = ", ".join(f"{counted(len(rows), 'message')} of the role {role}" for role, rows in found.items())
    first = min((rows[0] for rows in found.values()), key=lambda row: row.row)
    flag = "--use_lm_loss" if policy.mask_style == "released" else f"--loss_weights {next(iter(found))}=1"
    return (
        f"weights without effect: {file.path} has weights on {named} (first: {file.place(first)}), but "
        f"weights multiply, and text of that kind weighs 0; give it a weight, as in {flag}"
    )


def _ends(role: str, policy: WeightPolicy) -> bool:
    return role == "user" and bool(policy.by_kind()[SpanKind.USER_END])


def _says_weights(row: Conversation) -> bool:
    return any(message.says_weight or message.weight != 1 or message.loss_spans for message in row.messages)
