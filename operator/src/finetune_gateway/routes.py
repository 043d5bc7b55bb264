"""The routes that a gateway lets through: a server may have others, which are not for users. Pure."""

from __future__ import annotations

from typing import Literal

Route = Literal["/v1/chat/completions", "/v1/completions", "/v1/models"]
_POST: tuple[Route, ...] = ("/v1/chat/completions", "/v1/completions")
_MODELS: Route = "/v1/models"


def route_of(method: str, path: str) -> Route | None:
    """The route of a request, by its decoded path; None: it is not let through."""
    if method == "POST":
        return next((route for route in _POST if path == route), None)
    if method != "GET" or any(part in (".", "..") for part in path.split("/")):
        return None
    return _MODELS if path == _MODELS or path.startswith(f"{_MODELS}/") else None
