"""What would give a process what it is denied, in the words of whatever starts it.

The grammar of *needs* is that of errors.Unavailable: capabilities joined by ``+``, alternatives by ``|``, a path, ``unix:PATH``
or ``rbac:RESOURCE``.
"""

from __future__ import annotations

import grp
import os
import shlex
import stat
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

_SOCKET, _RIGHT = "unix:", "rbac:"
_FEW = 8  # a process with more capabilities is root's, and is started anew without a list of them


class ByHand(NamedTuple):
    """What a person types to start the agent, and as whom it is to run."""

    command: str = "otel-hostmetrics"
    uid: int = 65534
    gid: int = 65534

    def setpriv(self, rights: str) -> str:
        return f"sudo setpriv --reuid={self.uid} --regid={self.gid} {rights} {self.command}"


_NOBODY = ByHand()


@dataclass(frozen=True)
class Cure:
    """One way out: which capabilities, readable paths and others, and how each kind of host gives them."""

    capabilities: tuple[str, ...]
    paths: tuple[str, ...]
    others: tuple[str, ...]  # in words
    held: bool  # the process has the capabilities already: something else refuses
    systemd: tuple[str, ...]
    kubernetes: tuple[str, ...]
    podman: tuple[str, ...]
    by_hand: tuple[str, ...]

    def __str__(self) -> str:
        return " and ".join([*self.capabilities, *(f"{path} readable" for path in self.paths), *self.others])


def cures(needs: str, held: Collection[str] = (), start: ByHand = _NOBODY) -> tuple[Cure, ...]:
    """One cure per alternative, in the order given; empty for empty *needs*.

    *held* are the process's capabilities. Where they were chosen one by one, what a cure prints keeps them.
    """
    return tuple(_cure(alternative, held, start) for alternative in needs.split("|") if alternative.strip())


def _cure(alternative: str, held: Collection[str], start: ByHand) -> Cure:
    if alternative.startswith(_SOCKET):
        return _socket(alternative.removeprefix(_SOCKET), held, start)
    if alternative.startswith(_RIGHT):
        return _right(alternative.removeprefix(_RIGHT))
    wanted = [name.strip() for name in alternative.split("+") if name.strip()]
    names = tuple(name for name in wanted if name.startswith("CAP_"))
    paths = tuple(name for name in wanted if not name.startswith("CAP_"))
    given = _with(names, held)
    return Cure(
        names,
        paths,
        (),
        bool(names) and set(names) <= set(held),
        _systemd(given, paths),
        _kubernetes(given, paths),
        _podman(given, paths),
        _by_hand(given, paths, start),
    )


def _with(names: tuple[str, ...], held: Collection[str]) -> tuple[str, ...]:
    chosen = tuple(name for name in held if name not in names) if len(held) <= _FEW else ()
    return (*chosen, *names)


def _socket(path: str, held: Collection[str], start: ByHand) -> Cure:
    """To connect takes write permission. Where no group has it, as with containerd's, it takes root or the capability to do without."""
    group = _group(path)
    systemd = (f"SupplementaryGroups={group}",) if group else _systemd(_with(("CAP_DAC_OVERRIDE",), held), ())
    by_hand = (start.setpriv(f"--groups={group}"),) if group else ()
    words = (f"{path} writable",)
    return Cure((), (), words, False, systemd, _kubernetes((), (path,)), _podman((), (path,)), (*by_hand, *_by_hand((), (), start)))


def _group(path: str) -> str:
    """Empty where it is not known, and where that is root's."""
    try:
        status = os.stat(path)
        return grp.getgrgid(status.st_gid).gr_name if status.st_gid and status.st_mode & stat.S_IWGRP else ""
    except (OSError, KeyError):
        return ""


def _right(resource: str) -> Cure:
    """An account that the API server lets ``get`` the *resource*: the kubelet asks it for each request (webhook authorization)."""
    role = f'a ClusterRole with rules: [{{apiGroups: [""], resources: [{resource}], verbs: [get]}}], bound to the ServiceAccount'
    token = (f"workloads.kubelet_token: a file with the token of an account that may get {resource}",)
    return Cure((), (), (f"the right to get {resource}",), False, token, (role,), token, token)


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


def _by_hand(names: tuple[str, ...], paths: tuple[str, ...], start: ByHand) -> tuple[str, ...]:
    """setpriv(1): ambient capabilities reach Python although its file has none. They must be inheritable too."""
    lines = [f"sudo chmod a+r {shlex.quote(path)}" for path in paths]
    if names:
        plus = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in names)
        lines.append(start.setpriv(f"--clear-groups --inh-caps=-all,{plus} --ambient-caps=-all,{plus}"))
    return (*lines, f"or as root: sudo {start.command}")
