"""Weights in the data that change nothing: weights multiply, and what they multiply is 0."""

from instruction_modelling.chat.spans import SpanKind
from instruction_modelling.progress import counted
from instruction_modelling.rows.conversations import ConversationFile
from instruction_modelling.tokens.weights import WeightPolicy

_KIND_OF_ROLE = {"system": SpanKind.SYSTEM, "user": SpanKind.USER, "tool": SpanKind.TOOL}


def idle_weights(file: ConversationFile, policy: WeightPolicy, weighs_all: bool = False) -> str | None:
    """Return, in words, which weights of a file's rows and messages have no effect; None where all have one.

    Args:
        weighs_all: every token weighs 1 (blocks of language modelling without a weight flag).
    """
    facts = file.facts()
    if weighs_all:
        rows = facts.weighing
        if rows.first is None:
            return None
        return (
            f"weights without effect: {file.path} has them on {counted(rows.count, 'row')} "
            f"(first: {file.place(rows.first)}), but under --use_lm_modelling every token weighs 1; give a "
            "weight flag too, such as --response_loss_weight 1, and weights hold across the blocks"
        )
    table, released = policy.by_kind(), policy.mask_style == "released"
    found = {
        role: of_role
        for role, of_role in facts.saying.items()
        if (kind := _KIND_OF_ROLE.get(role)) is not None
        and not (policy.instruction if released else table[kind] or _ends(role, policy))
    }
    if not found:
        return None
    named = ", ".join(f"{counted(of.count, 'message')} of the role {role}" for role, of in found.items())
    first = min((of.first for of in found.values() if of.first), key=lambda row: row.row)
    flag = "--use_lm_loss" if policy.mask_style == "released" else f"--loss_weights {next(iter(found))}=1"
    return (
        f"weights without effect: {file.path} has weights on {named} (first: {file.place(first)}), but "
        f"weights multiply, and text of that kind weighs 0; give it a weight, as in {flag}"
    )


def _ends(role: str, policy: WeightPolicy) -> bool:
    return role == "user" and bool(policy.by_kind()[SpanKind.USER_END])
