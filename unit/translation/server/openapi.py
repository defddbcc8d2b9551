"""The description of the routes for programs (OpenAPI 3.1)."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from unit.translation.server.admission import Limits
from unit.translation.server.options import Options

_ERRORS = {
    400: "a parameter is missing or wrong, or the image is damaged",
    403: "the Host or Origin header names another site",
    408: "the body stopped arriving",
    413: "the image has too many bytes or pixels",
    415: "the body is not an image in a supported format",
    429: "too many requests are in progress; try again after Retry-After seconds",
    500: "the server failed, or the model's output is not finite",
    503: "out of memory; try again later, or send a smaller image",
}


def openapi(models: Iterable[str], limits: Limits) -> dict[str, Any]:
    """Return the description of a server of these models."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "UNIT: image-to-image translation", "version": _version()},
        "paths": {
            "/translate": {"post": _translate(list(models), limits)},
            "/models": {"get": _get("models, their domains, and the limits of an image")},
            "/health": {"get": _get("status, and the number of requests in progress")},
        },
        "components": {
            "schemas": {"Error": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}}
        },
    }


def _translate(models: list[str], limits: Limits) -> dict[str, Any]:
    schema = Options.model_json_schema()
    schema["properties"]["model"] |= {"enum": models}
    parameters = [
        {
            "name": name,
            "in": "query",
            "required": name in schema["required"],
            "description": keys.pop("description"),
            "schema": {key: value for key, value in keys.items() if key != "title"},
        }
        for name, keys in schema["properties"].items()
    ]
    text = {"schema": {"type": "string"}}
    binary = {"schema": {"type": "string", "format": "binary"}}
    return {
        "summary": "translate an image",
        "parameters": parameters,
        "requestBody": {
            "required": True,
            "description": f"the image file itself: at most {limits.bytes} bytes and {limits.pixels} pixels",
            "content": {"image/*": binary},
        },
        "responses": {
            "200": {
                "description": "the translation, of the image's size; several samples as a ZIP archive",
                "headers": {"X-Not-Kept": {"description": "what of the image the result does not hold", **text}},
                "content": {"image/*": binary, "application/zip": binary},
            },
            **{str(status): _error(description) for status, description in _ERRORS.items()},
        },
    }


def _get(description: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object"}}}
    return {"summary": description, "responses": {"200": {"description": description, "content": content}}}


def _error(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }


def _version() -> str:
    try:
        return version("unit-translation")
    except PackageNotFoundError:  # run in a clone that is not installed
        return "0"
