"""The options that every command has, made of the table in config/flags.py, and what a command line asks for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import typer

from otel_hostmetrics.config.flags import FLAGS, Flag, layer
from otel_hostmetrics.config.schema import Layer

_Command = TypeVar("_Command", bound=Callable[..., None])
_CONFIG = "--config"


@dataclass(frozen=True)
class Asked:
    """The options before and after a command's name, the later ones over the earlier."""

    flags: Layer = field(default_factory=dict)
    path: str | None = None  # the YAML file
    once: bool = False
    form: str | None = None  # --format
    resolve_only: bool = False

    def over(self, arguments: Mapping[str, object], once: bool = False, form: str | None = None, resolve_only: bool = False) -> Asked:
        """These, with a command's own arguments on top."""
        path = arguments.get("config")
        return Asked(
            layer(arguments, self.flags),
            self.path if path is None else str(path),
            self.once or once,
            form or self.form,
            self.resolve_only or resolve_only,
        )


def configurable(command: _Command) -> _Command:
    """Give *command*, which ends in ``**arguments``, the option of every flag and ``--config``.

    typer reads signatures; this writes one, so that an option is declared once for all commands.
    """
    signature = inspect.signature(command, eval_str=True)
    own = [parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    config = _option("config", str, (_CONFIG,), metavar="FILE", help="YAML file with settings; flags and environment win over it")
    command.__signature__ = signature.replace(parameters=[*own, config, *map(_parameter, FLAGS)])  # type: ignore[attr-defined]
    return command


def _parameter(flag: Flag) -> inspect.Parameter:
    kind = list[str] if flag.key.is_list else str
    default = _default(flag)
    description = f"{flag.key.description}{f' (default: {default})' if default else ''}"
    return _option(flag.parameter, kind, flag.names, metavar=flag.metavar, help=description, rich_help_panel=flag.group)


def _default(flag: Flag) -> str:
    return "" if flag.key.default in ((), "") else str(flag.key.default)


def _option(name: str, kind: type, flags: tuple[str, ...], **how: Any) -> inspect.Parameter:
    """Absent is None: what is not given must not hide what the environment or the file says."""
    default = typer.Option(None, *flags, show_default=False, **how)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind | None)
