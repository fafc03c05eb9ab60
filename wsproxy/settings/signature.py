"""Gives functions that take settings a signature with one parameter for each setting. No I/O."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TypeVar

from .setting import REQUIRED, Setting

__all__ = ["spelled_out"]

F = TypeVar("F", bound=Callable[..., None])


def spelled_out(settings: Mapping[str, Setting]) -> Callable[[F], F]:
    """Decorate a function that ends in ``**options``, so that its signature names each setting.

    ``help()`` and ``inspect.signature`` show that. Type checkers read the annotation of ``options`` instead.
    """

    def spell_out(function: F) -> F:
        signature = inspect.signature(function)
        own = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
        known = {parameter.name for parameter in own}
        more = [_parameter(setting) for name, setting in settings.items() if name not in known]
        function.__signature__ = signature.replace(parameters=own + more)  # type: ignore[attr-defined]
        return function

    return spell_out


def _parameter(setting: Setting) -> inspect.Parameter:
    default = inspect.Parameter.empty if setting.default is REQUIRED else setting.default
    given = setting.of_kind.given
    return inspect.Parameter(
        setting.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=given | None if setting.nullable else given,
    )
