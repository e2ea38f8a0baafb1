"""Tool calls and tool definitions of a row, brought into the one form that chat templates read (OpenAI's)."""

from typing import Any

from instruction_modelling.rows.json_lines import RowRefused, snippet
from instruction_modelling.rows.values import (
    Fields,
    check_encodable,
    kind_of,
    parse_json,
    same_json,
    without_null_keys,
)

_CALL = '{"type": "function", "function": {"name": ..., "arguments": {...}}}'
_BAD_CALLS, _BAD_TOOLS = "bad tool_calls", "bad tools"
# OpenAI's name of a call's arguments first, then LangChain's, Anthropic's and Llama's.
_ARGUMENTS = ("arguments", "args", "input", "parameters")
_SCHEMAS = ("parameters", "input_schema", "inputSchema")
_TOOLS_FORM = "a list of objects, or that list as a JSON string"


def tool_calls_of(calls: Any, where: str) -> tuple[dict[str, Any], ...]:
    """Return tool calls, each `{..., "function": {"name", "arguments"}}` with an object as arguments.

    `calls` is a list of calls, or that list as a JSON string; a call may be flat (`{"name", "arguments"}`).
    Its arguments may be called `args`, `input` or `parameters`, and may be a JSON string; null keys in an
    object are left out, null keys in a string stay.

    Raises:
        RowRefused: a call has no name, or its arguments are no object, or are given twice and differ.
    """
    if isinstance(calls, str):
        calls = parse_json(calls, where, _BAD_CALLS, f"write a list of {_CALL}") if calls.strip() else []
    if not isinstance(calls, list):
        raise _bad_call(calls, f"{where} is {kind_of(calls)}, {snippet(calls)}; it")
    return tuple(_tool_call(call, f"{where}: tool call {index}") for index, call in enumerate(calls))


def _tool_call(call: Any, where: str) -> dict[str, Any]:
    if isinstance(call, str):
        call = parse_json(call, where, _BAD_CALLS, f"write it as {_CALL}")
    if not isinstance(call, dict):
        raise _bad_call(call, where)
    check_encodable(call, where, _BAD_CALLS)
    outer = {key: value for key, value in call.items() if value is not None}
    function = outer.pop("function", None)
    if isinstance(function, str):
        function = parse_json(function, f"{where}: function", _BAD_CALLS, f"write it as {_CALL}")
    if function is None:
        function = {"name": outer.pop("name", None)}
        if "type" in outer:
            # LangChain's "tool_call" and Anthropic's "tool_use" are the same thing by other names.
            outer["type"] = "function"
        else:
            outer = {**({"id": outer.pop("id")} if "id" in outer else {}), "type": "function", **outer}
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise _bad_call(call, where)
    inner = {key: value for key, value in function.items() if value is not None}
    given = [(key, fields.pop(key)) for fields in (inner, outer) for key in _ARGUMENTS if key in fields]
    if not given:
        _refuse_other_arguments({**outer, **inner}, where)
    arguments = [_arguments(value, f"{where}: {key}") for key, value in given]
    if any(not same_json(arguments[0], other) for other in arguments[1:]):
        detail = f"{where} has different arguments in {', '.join(key for key, _ in given)}; keep one of them"
        raise RowRefused("ambiguous arguments", detail)
    return {**outer, "function": {**inner, "arguments": arguments[0] if arguments else {}}}


def _refuse_other_arguments(fields: dict[str, Any], where: str) -> None:
    """Refuse a call without arguments that has an object under another name: it would be trained without."""
    for key, value in fields.items():
        is_object = isinstance(value, dict) or (isinstance(value, str) and value.lstrip().startswith("{"))
        if is_object and value and key != "name":
            detail = f'{where} has no arguments, but "{key}": {snippet(value)}'
            raise RowRefused(_BAD_CALLS, f'{detail}; if these are they, call them "arguments"')


def _bad_call(call: Any, where: str) -> RowRefused:
    return RowRefused(_BAD_CALLS, f"{where} is {snippet(call)}; tool_calls must be a list of {_CALL}")


def _arguments(value: Any, where: str) -> dict[str, Any]:
    """Return a call's arguments as an object."""
    if isinstance(value, str):
        # Some servers write no arguments as an empty string.
        parsed = parse_json(value, where, _BAD_CALLS, "write a JSON object") if value.strip() else {}
        check_encodable(parsed, where, _BAD_CALLS)
    else:
        parsed = without_null_keys(value)
    if not isinstance(parsed, dict):
        detail = f"{where} is {kind_of(parsed)}, {snippet(value)}; arguments are an object, or it as a string"
        raise RowRefused(_BAD_CALLS, detail)
    return parsed


def row_tools(columns: Fields) -> tuple[dict[str, Any], ...]:
    """Return the definitions in the row's `tools` (or OpenAI's older `functions`), each in OpenAI's wrapper.

    Raises:
        RowRefused: they are no list of objects, or the two columns differ.
    """
    given = [(key, _definitions(columns[key], key)) for key in ("tools", "functions") if columns.get(key)]
    given = [(key, tools) for key, tools in given if tools]
    if len(given) > 1 and not same_json(given[0][1], given[1][1]):
        raise RowRefused("ambiguous tools", 'the columns "tools" and "functions" differ; keep one of them')
    return tuple(given[0][1]) if given else ()


def _definitions(tools: Any, column: str) -> list[dict[str, Any]]:
    bad = RowRefused(_BAD_TOOLS, f"{column} is {snippet(tools)}; it must be {_TOOLS_FORM}")
    # A JSON string holds no nulls but its writer's: only objects of the file itself can be padded.
    padded = not isinstance(tools, str)
    if isinstance(tools, str):
        tools = parse_json(tools, column, _BAD_TOOLS, "write a list of objects") if tools.strip() else []
    if not isinstance(tools, list):
        raise bad
    definitions = []
    for index, tool in enumerate(tools):
        if isinstance(tool, str):
            tool = parse_json(tool, f"{column} {index}", _BAD_TOOLS, f"{column} must be {_TOOLS_FORM}")
        elif padded:
            tool = without_null_keys(tool)
        if not isinstance(tool, dict):
            raise bad
        check_encodable(tool, column, _BAD_TOOLS)
        definitions.append(_definition(tool, f"{column} {index}"))
    return definitions


def _definition(tool: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a tool's definition in OpenAI's wrapper; what has neither a function nor a name stays as it is
    (a tool that the model's maker built in)."""
    if "function" in tool:
        function = tool["function"]
        if isinstance(function, str):
            function = parse_json(function, f"{where}: function", _BAD_TOOLS, "it must be an object")
        if not isinstance(function, dict):
            raise RowRefused(_BAD_TOOLS, f"{where}: function is {snippet(function)}; it must be an object")
        return {"type": "function", **tool, "function": _with_parameters(function, where)}
    if "name" not in tool:
        return tool
    function = {key: value for key, value in tool.items() if key != "type"}
    return {"type": "function", "function": _with_parameters(function, where)}


def _with_parameters(function: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a function whose `input_schema` (Anthropic's name) or `inputSchema` (that of the Model Context
    Protocol) is its `parameters`; each may be a JSON string."""
    given = [(key, _schema(function[key], f"{where}: {key}")) for key in _SCHEMAS if key in function]
    if not given:
        return function
    if any(not same_json(given[0][1], other) for _, other in given[1:]):
        detail = f"{where} has different objects in {', '.join(key for key, _ in given)}; keep one of them"
        raise RowRefused("ambiguous tools", detail)
    renamed = {_SCHEMAS[0] if key in _SCHEMAS else key: value for key, value in function.items()}
    return renamed | {_SCHEMAS[0]: given[0][1]}


def _schema(value: Any, where: str) -> Any:
    """Return the schema of a function's parameters, which tables often have as a JSON string."""
    if not isinstance(value, str):
        return value
    schema = parse_json(value, where, _BAD_TOOLS, "write an object") if value.strip() else {}
    check_encodable(schema, where, _BAD_TOOLS)
    return schema
