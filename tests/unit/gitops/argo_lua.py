"""Runs a script as Argo CD does: Lua 5.1, the object in `obj`, and of Lua's libraries only the harmless ones.

https://github.com/argoproj/argo-cd/blob/v3.1.0/util/lua/lua.go
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lupa.lua51 import LuaRuntime, lua_type

ROOT = Path(__file__).parents[3]
ARGOCD = ROOT / "gitops" / "argocd"
ONLY_SAFE = "io = nil; debug = nil; package = nil; require = nil; os = {date = os.date, time = os.time}"


def run(script: str, obj: dict[str, Any]) -> Any:
    """What the script returns, as JSON's types."""
    lua = LuaRuntime(unpack_returned_tuples=True)
    lua.execute(ONLY_SAFE)
    lua.globals()["obj"] = _to_lua(lua, obj)
    return _from_lua(lua.execute(script))


def _to_lua(lua: LuaRuntime, value: Any) -> Any:
    if isinstance(value, dict):
        return lua.table_from({key: _to_lua(lua, child) for key, child in value.items()})
    if isinstance(value, list):
        return lua.table_from([_to_lua(lua, child) for child in value])
    return value


def _from_lua(value: Any) -> Any:
    if lua_type(value) != "table":
        return value
    keys = list(value.keys())
    if keys and all(isinstance(key, int) for key in keys):
        return [_from_lua(value[key]) for key in sorted(keys)]
    return {key: _from_lua(value[key]) for key in keys}
