"""`/api/docs`: the OpenAPI document as a plain page, without a script and from no other host."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any


def page(document: Mapping[str, Any]) -> str:
    """The document as HTML. Everything in it is shown as text."""
    info = document["info"]
    title = escape(f"{info['title']} {info['version']}")
    body = "\n".join(part for path, item in document["paths"].items() for part in _path(path, item))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'</head>\n<body><main><h1>{title}</h1>\n<p><a href="/openapi.json">openapi.json</a></p>\n'
        f"{body}\n<h2>Schemas</h2>\n{_schemas(document)}\n</main></body></html>\n"
    )


def _path(path: str, item: Mapping[str, Any]) -> Iterator[str]:
    for method, operation in item.items():
        said = escape(operation.get("description") or operation.get("summary", ""))
        yield f"<h2><code>{method.upper()} {escape(path)}</code></h2>\n<p>{said}</p>"
        rows = [_parameter(one) for one in operation.get("parameters", ())]
        content = operation.get("requestBody", {}).get("content", {})
        rows += [_row("body", kind, _type(one["schema"])) for kind, one in content.items()]
        for status, response in operation["responses"].items():
            for kind, one in response.get("content", {}).items():
                rows.append(_row(f"answer {status}", kind, _type(one.get("schema", {}))))
        yield f"<table>{''.join(rows)}</table>"


def _parameter(one: Mapping[str, Any]) -> str:
    return _row(one["in"], one["name"], _type(one["schema"]))


def _row(*cells: str) -> str:
    """A row of the table; the last cell is HTML."""
    shown = [*map(escape, cells[:-1]), cells[-1]]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in shown)}</tr>"


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return escape(str(schema.get("type", "anything")))


def _schemas(document: Mapping[str, Any]) -> str:
    known = document.get("components", {}).get("schemas", {})
    return "\n".join(
        f'<details id="{escape(name)}"><summary>{escape(name)}</summary>'
        f"<pre>{escape(json.dumps(schema, indent=2, ensure_ascii=False))}</pre></details>"
        for name, schema in sorted(known.items())
    )
