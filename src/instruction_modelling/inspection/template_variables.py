"""The variables that a chat template reads, and their defaults where its text shows them."""

from collections.abc import Iterator
from typing import Any

# What transformers, a row or the tokenizer give every template.
_GIVEN = {"messages", "tools", "documents", "add_generation_prompt", "continue_final_message"}


def template_variables(template: str, names_of_tokens: set[str]) -> dict[str, Any]:
    """Return the variables of a Jinja template that a row may give, by name, each with its default (a JSON
    value); None where none can be seen.

    Args:
        names_of_tokens: variables that the tokenizer gives (`bos_token`).
    """
    from jinja2 import TemplateError, meta, nodes
    from transformers.utils.chat_template_utils import _compile_jinja_template

    try:
        environment = _compile_jinja_template(template).environment
        tree = environment.parse(template)
    except (TemplateError, RecursionError):
        return {}
    names = meta.find_undeclared_variables(tree) - _GIVEN - names_of_tokens - set(environment.globals)
    defaults = dict(_defaults(tree))
    # A name that is set in one branch alone counts as undeclared in another, and is none that a row gives
    # unless the template asks whether it is there.
    asked = {*defaults, *filter(None, (_tested(test) for test in tree.find_all(nodes.Test)))}
    stored = {name.name for name in tree.find_all(nodes.Name) if name.ctx != "load"}
    names -= (stored - asked) | {macro.name for macro in tree.find_all(nodes.Macro)}
    return {name: defaults.get(name) for name in sorted(names)}


def _defaults(tree: Any) -> Iterator[tuple[str, Any]]:
    """Yield (name, default) for each way to write one: `x | default(1)`, `x if x is defined else 1`, and
    `set x = 1` where x is not defined."""
    from jinja2 import nodes

    for found in tree.find_all(nodes.Filter):
        if found.name in ("default", "d") and isinstance(found.node, nodes.Name) and found.args:
            yield from _named(found.node.name, found.args[0])
    for found in tree.find_all(nodes.CondExpr):
        name = _tested(found.test)
        if name and isinstance(found.expr1, nodes.Name) and found.expr1.name == name:
            yield from _named(name, found.expr2)
    for found in tree.find_all(nodes.If):
        name = _tested(found.test.node) if isinstance(found.test, nodes.Not) else ""
        for inner in found.body:
            target = inner.target if isinstance(inner, nodes.Assign) else None
            if isinstance(target, nodes.Name) and name and target.name == name:
                yield from _named(name, inner.node)


def _tested(test: Any) -> str:
    """Return the name that a test asks of whether it is defined; "" for any other test."""
    from jinja2 import nodes

    is_test = isinstance(test, nodes.Test) and test.name == "defined"
    return str(test.node.name) if is_test and isinstance(test.node, nodes.Name) else ""


def _named(name: str, node: Any) -> Iterator[tuple[str, Any]]:
    from jinja2 import nodes

    try:
        value = node.as_const()
    except nodes.Impossible:
        return
    if value is None or isinstance(value, bool | int | float | str):
        yield name, value
