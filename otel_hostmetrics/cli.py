"""The command line. It reads and checks the configuration, then becomes the agent (launch.py) or answers and exits.

Exit status: 0; 1 when --once or ``doctor --strict`` finds a failure, or ``rdma`` is refused; 2 for wrong usage; 77 when
``doctor --strict`` finds something denied, or ``rdma`` is; 78 for a wrong configuration, after one line on standard error.

Reload: ``python -m otel_hostmetrics --resolve-only ARGV`` with the arguments the front was started with prints the
resolved settings, as settings.encode() writes them, to standard output and exits with 0; or prints the one line to
standard error and exits with 78. It says nothing else and starts nothing.

A command imports what it alone needs, so that the way to the agent stays short.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Collection
from typing import Annotated, Literal

import typer

from otel_hostmetrics import __version__, launch, logs, rdma_counters
from otel_hostmetrics.config import standard
from otel_hostmetrics.config.resolve import Resolved, has_exit, resolve, with_exit
from otel_hostmetrics.config.schema import ConfigError
from otel_hostmetrics.lean import bound_exit
from otel_hostmetrics.options import Asked, configurable
from otel_hostmetrics.resource import identified
from otel_hostmetrics.settings import Log, encode

_NAME = "otel-hostmetrics"
_BAD_CONFIGURATION = 78  # EX_CONFIG of sysexits.h
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # what a write to standard output can end in

_log = logging.getLogger(__name__)

app = typer.Typer(pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]})
config = typer.Typer(help="Show or check the settings in effect.", no_args_is_help=True)
app.add_typer(config, name="config")
app.add_typer(rdma_counters.app, name="rdma")

Format = Literal["text", "openmetrics", "json", "otlp-json"]
Once = Annotated[bool, typer.Option("--once", help="Collect once, print the snapshot, exit")]
Form = Annotated[Format | None, typer.Option("--format", help="Form of what --once prints (default: text)", show_default=False)]
ResolveOnly = Annotated[bool, typer.Option("--resolve-only", hidden=True)]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON")]


def main() -> None:
    """The entry point."""
    _open_streams()
    try:
        app(prog_name=_NAME)
    except ConfigError as error:
        _say(str(error))
        sys.exit(_BAD_CONFIGURATION)
    except SystemExit as end:
        bound_exit(end.code if isinstance(end.code, int) else 0)
        raise
    except OSError as error:
        if error.filename is None and error.errno not in _FULL:
            raise
        _say(f"{error.filename or 'standard output'}: {error.strerror}")
        os._exit(1)  # not sys.exit(): Python would try to write the rest once more, and say so


def _open_streams() -> None:
    """Of the standard streams, those that were closed. The next files opened would take their numbers, and be written messages."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)  # the least number that is free: its own
            os.set_inheritable(descriptor, True)
            setattr(sys, name, os.fdopen(descriptor, mode))


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"{_NAME} {__version__}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version and exit")]


@app.callback(invoke_without_command=True)
@configurable
def front(
    ctx: typer.Context,
    *,
    once: Once = False,
    form: Form = None,
    resolve_only: ResolveOnly = False,
    version: Version = False,  # noqa: ARG001 - its callback has acted
    **arguments: object,
) -> None:
    """Export metrics of the kernel and its drivers - BPF, RDMA, RAPL, GPU - by OTLP, to Prometheus, as JSON.

    Without a command it runs. Where no exporter is configured it serves Prometheus on localhost:9464.
    Settings come from flags, then the environment (OTEL_HOSTMETRICS_SECTION__KEY, then OTEL_*), then the file of --config.
    """
    ctx.obj = Asked().over(arguments, once, form, resolve_only)
    if ctx.invoked_subcommand is None:
        _start(ctx.obj)


@app.command()
@configurable
def run(ctx: typer.Context, *, once: Once = False, form: Form = None, resolve_only: ResolveOnly = False, **arguments: object) -> None:
    """Run the agent; the same as no command at all."""
    _start(ctx.obj.over(arguments, once, form, resolve_only))


@app.command()
@configurable
def doctor(
    ctx: typer.Context,
    *,
    json: AsJson = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 77 if something is denied, 1 if a source fails")] = False,
    **arguments: object,
) -> None:
    """Say what every source and each way to names of workloads finds on this host, and what would cure what is denied."""
    from otel_hostmetrics.agent import examine
    from otel_hostmetrics.doctor import report, surroundings

    resolved = _resolved(ctx.obj.over(arguments))
    logs.setup(Log(level="error"))  # the report says the rest
    found = report.report(examine(resolved.settings), surroundings.host(), surroundings.process())
    typer.echo(report.as_json(found) if json else report.text(found), nl=False)
    raise typer.Exit(report.exit_status(found, strict))


@app.command()
@configurable
def metrics(
    ctx: typer.Context,
    *,
    markdown: Annotated[bool, typer.Option("--markdown", help="As the tables of METRICS.md")] = False,
    json: AsJson = False,
    **arguments: object,
) -> None:
    """List the metrics there are, less what --include and --exclude leave out."""
    from otel_hostmetrics import reference
    from otel_hostmetrics.catalogue import CATALOGUE

    rows = reference.selected(CATALOGUE, _resolved(ctx.obj.over(arguments)).settings.general)
    render = reference.markdown if markdown else reference.as_json if json else reference.text
    typer.echo(render(rows), nl=False)


@config.command()
@configurable
def show(ctx: typer.Context, **arguments: object) -> None:
    """Print every setting as a YAML file, with where it came from. Secrets are not shown."""
    from otel_hostmetrics.config.show import show as rendered

    typer.echo(rendered(with_exit(_resolved(ctx.obj.over(arguments)))), nl=False)


@config.command()
@configurable
def check(ctx: typer.Context, **arguments: object) -> None:
    """Check flags, environment and file; exit with 78 and one line if something is wrong."""
    for notice in _resolved(ctx.obj.over(arguments)).notices:
        _say(notice)
    typer.echo("the configuration is valid")


def _start(asked: Asked) -> None:
    if asked.form and not asked.once:
        raise typer.BadParameter("--format goes with --once")
    if asked.resolve_only:
        sys.stdout.buffer.write(encode(identified(with_exit(_resolved(asked)).settings)))
    elif standard.disabled(os.environ):
        _say("OTEL_SDK_DISABLED is true: nothing started")
    elif asked.once:
        _once(_resolved(asked), asked.form or "text")
    else:
        _become_agent(with_exit(_resolved(asked)))


def _once(resolved: Resolved, form: str) -> None:
    from otel_hostmetrics import agent

    _set_up_logs(resolved)
    raise typer.Exit(agent.once(resolved.settings, form, sys.stdout.buffer))


def _become_agent(resolved: Resolved) -> None:
    _set_up_logs(resolved)
    settings = resolved.settings
    if not has_exit(settings):
        _say("OTEL_METRICS_EXPORTER leaves no exporter, and there is no snapshots.directory: nothing started")
        return
    if resolved.defaulted_exit:
        _log.warning("no exporter is configured: serving Prometheus on %s", settings.prometheus.listen)
    try:
        launch.agent(identified(settings), sys.argv[1:])
    except OSError as error:
        _say(f"cannot start {sys.executable}: {error.strerror}; this user must be able to run it")
        sys.exit(1)


def _resolved(asked: Asked) -> Resolved:
    return resolve(asked.flags, os.environ, asked.path, _source_names, _plugin_names)


def _source_names() -> Collection[str]:
    from otel_hostmetrics.sources import OWN, SOURCES

    return [*SOURCES, OWN]


def _plugin_names() -> Collection[str]:
    from otel_hostmetrics.plugins import installed

    return installed()


def _set_up_logs(resolved: Resolved) -> None:
    logs.setup(resolved.settings.log)
    for notice in resolved.notices:
        _log.warning("%s", notice)


def _say(line: str) -> None:
    """One line to the person who typed the command."""
    typer.echo(f"{_NAME}: {line}", err=True)
