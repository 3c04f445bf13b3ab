"""What would give a process what it is denied, in the words of whatever starts it.

The grammar of *needs* is that of errors.Unavailable: capabilities joined by ``+``, alternatives by ``|``, or a path.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection
from dataclasses import dataclass

_COMMAND = "otel-hostmetrics"
_FEW = 8  # a process with more capabilities is root's, and is started anew without a list of them


@dataclass(frozen=True)
class Cure:
    """One way out: which capabilities and readable paths, and how each kind of host gives them."""

    capabilities: tuple[str, ...]
    paths: tuple[str, ...]
    held: bool  # the process has the capabilities already: something else refuses
    systemd: tuple[str, ...]
    kubernetes: tuple[str, ...]
    podman: tuple[str, ...]
    by_hand: tuple[str, ...]

    def __str__(self) -> str:
        return " and ".join([*self.capabilities, *(f"{path} readable" for path in self.paths)])


def cures(needs: str, held: Collection[str] = ()) -> tuple[Cure, ...]:
    """One cure per alternative, in the order given; empty for empty *needs*.

    *held* are the process's capabilities. Where they were chosen one by one, what a cure prints keeps them.
    """
    return tuple(_cure(alternative, held) for alternative in needs.split("|") if alternative.strip())


def _cure(alternative: str, held: Collection[str]) -> Cure:
    wanted = [name.strip() for name in alternative.split("+") if name.strip()]
    names = tuple(name for name in wanted if name.startswith("CAP_"))
    paths = tuple(name for name in wanted if not name.startswith("CAP_"))
    chosen = tuple(name for name in held if name not in names) if len(held) <= _FEW else ()
    given = (*chosen, *names)
    return Cure(
        names,
        paths,
        bool(names) and set(names) <= set(held),
        _systemd(given, paths),
        _kubernetes(given, paths),
        _podman(given, paths),
        _by_hand(given, paths),
    )


def _systemd(names: tuple[str, ...], paths: tuple[str, ...]) -> tuple[str, ...]:
    """A file the service's user cannot read needs its mode changed, or the capability that reads any file."""
    listed = " ".join(names or ("CAP_DAC_READ_SEARCH",) if paths else names)
    return (f"AmbientCapabilities={listed}", f"CapabilityBoundingSet={listed}")


def _kubernetes(names: tuple[str, ...], paths: tuple[str, ...]) -> tuple[str, ...]:
    """User 0: for any other, what is added only fills the bounding set and is never effective."""
    added = ", ".join(name.removeprefix("CAP_") for name in names)
    context = f"securityContext: {{runAsUser: 0, capabilities: {{drop: [ALL], add: [{added}]}}}}"
    mounts = [f"volumes: a hostPath of {path}, mounted with readOnly: true" for path in paths]
    return (context, *mounts) if names else ("securityContext: {runAsUser: 0}", *mounts)


def _podman(names: tuple[str, ...], paths: tuple[str, ...]) -> tuple[str, ...]:
    added = f" --cap-drop=all --cap-add={','.join(name.removeprefix('CAP_').lower() for name in names)}" if names else ""
    volumes = "".join(f" --volume={shlex.quote(f'{path}:{path}:ro')}" for path in paths)
    return (f"sudo podman run --user=0{added}{volumes} ...",)


def _by_hand(names: tuple[str, ...], paths: tuple[str, ...]) -> tuple[str, ...]:
    """setpriv(1): ambient capabilities reach Python although its file has none. They must be inheritable too."""
    lines = [f"sudo chmod a+r {shlex.quote(path)}" for path in paths]
    if names:
        plus = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in names)
        account = "--reuid=65534 --regid=65534 --clear-groups"
        lines.append(f"sudo setpriv {account} --inh-caps=-all,{plus} --ambient-caps=-all,{plus} {_COMMAND}")
    return (*lines, f"or as root: sudo {_COMMAND}")
