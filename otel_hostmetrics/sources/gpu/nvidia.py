"""NVIDIA GPUs through NVML: when to hold the driver, when to let it go, and how to come back.

- A GPU that sleeps (runtime power management) is asked nothing: any question would wake it.
- An open NVML keeps GPUs awake. Where one may sleep (power/control is "auto") and nobody uses it, NVML is given back after
  _IDLE cycles, and opened again once somebody else has woken the GPU.
- A lost GPU, an unloaded driver and answers nobody understands are met with a new start, after longer and longer pauses. A lost
  GPU stays failed until it is back, or sysfs no longer has it either: it was unplugged, and is gone.
- While the file of ``gpu.release_file`` exists, NVML stays shut down: for GPU resets, driver upgrades, VFIO.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence

from otel_hostmetrics.catalogue.model import Metric
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import gpu_pci
from otel_hostmetrics.kernel.gpu_pci import RuntimePower
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.nvml import Failure
from otel_hostmetrics.model import Column
from otel_hostmetrics.settings import Gpu
from otel_hostmetrics.sources.gpu.nvidia_session import Memory, Session
from otel_hostmetrics.sources.gpu.points import Bound, Names, Value

_PAUSES = (5.0, 300.0)  # s: first and longest, before the driver is opened again
_HEALTHY = 60.0  # s without trouble, after which the next pause is the first again
_IDLE = 3  # cycles without use before NVML is given back on a host whose GPUs may sleep
_AGAIN = 60.0  # s after which an idle GPU that did not fall asleep is looked at again


class Nvidia:
    """A Backend."""

    def __init__(self, fs: HostFS, settings: Gpu, names: Names, pauses: tuple[float, float] = _PAUSES) -> None:
        self._fs, self._settings, self._pauses = fs, settings, pauses
        self._memory = Memory(names)
        self._session: Session | None = None
        self._powers: dict[str, RuntimePower] = {}  # by PCI address
        self._given_away: set[str] = set()  # PCI addresses of GPUs bound to another driver, such as vfio-pci
        self._failed: Unavailable | None = None
        self._pause = pauses[0]
        self._try_at = self._slow_at = 0.0
        self._opened_at = float("inf")  # when the driver was opened last, unless a pause has been taken since
        self._idle = 0
        self._rested_at: float | None = None  # when NVML was given back because nobody used it
        self._released = False  # because of gpu.release_file
        self._slept = False  # the GPUs did fall asleep since
        self._generation = 0
        self.refreshed = False
        self.again = 0.0
        self.problems: list[Unavailable] = []

    @property
    def devices(self) -> int:
        """While NVML is given back on purpose, those that sysfs shows."""
        return self._session.count if self._session else len(self._powers) if self._rested_at is not None or self._released else 0

    @property
    def generation(self) -> int:
        return self._generation + (self._session.generation if self._session else 0)

    @property
    def bound(self) -> Sequence[Bound]:
        return self._session.bound if self._session else ()

    def columns(self) -> Mapping[Metric, Column]:
        return self._session.columns if self._session else {}

    def facts(self) -> Mapping[str, object]:
        state = (
            "open"
            if self._session
            else "released"
            if self._released
            else "at rest: the GPUs sleep, or may"
            if self._rested_at is not None
            else "closed"
        )
        return {"nvml": state, **(self._session.facts if self._session else {})}

    def read(self) -> Sequence[Value]:
        self.problems, self.refreshed = [], False
        values = self._cycle(time.monotonic())
        self.problems += self._memory.unplugged()
        return values

    def _cycle(self, now: float) -> Sequence[Value]:
        if not self._ready(now):
            return []
        try:
            values = self._read(now)
        except Failure as failure:
            assert self._session is not None
            self._fall(now, self._session.nvml.unavailable(failure.call, failure.code))
            return []
        except Unavailable as error:  # of opening anew
            self._fall(now, error)
            return []
        self._rest_if_idle(now)
        return values

    def _read(self, now: float) -> Sequence[Value]:
        session = self._session
        assert session is not None
        slow = now - self._slow_at >= self._settings.slow_interval
        if session.outdated(slow) or self._unplugged(session):
            self._shut()
            session = self._open(now)
        self._slow_at = now if slow else self._slow_at
        lost = session.lost  # not just now, so that it is told before GPUs are looked for
        values = session.read(slow)
        self.refreshed = slow
        self.problems += session.problems
        if lost and now >= self._try_at:
            self._try_at = now + self._next_pause(now)
            self._shut()
            return self._open(now).read(slow=False)
        return values

    def _unplugged(self, session: Session) -> bool:
        """Whether the kernel, too, has lost one of those that are lost."""
        known = session.lost_at & self._memory.plugged if session.lost else ()
        return any(not os.path.exists(self._fs.sys("bus/pci/devices", address)) for address in known)

    def _ready(self, now: float) -> bool:
        """Whether NVML is open, or could be opened now."""
        self._released = self._asked_to_release()
        if self._released:
            self._shut()
            self._find_powers()
            self._rested_at = None
            return False
        if self._session is not None:
            return True
        if now < self._try_at:
            self.problems += [self._failed] if self._failed else []
            return False
        if self._resting(now):
            return False
        try:
            self._open(now)
        except Unavailable as error:
            self._fall(now, error)
            return False
        return True

    def _asked_to_release(self) -> bool:
        file = self._fs.path(self._settings.release_file) if self._settings.release_file else ""
        if not file or not os.path.exists(file):
            return False
        self.problems.append(Unavailable(Reason.UNREADABLE, "NVML", f"released for maintenance while {file} exists"))
        return True

    def _open(self, now: float) -> Session:
        """Raises Unavailable, with nothing left open."""
        self._find_powers()
        session = self._session = Session(self._fs, self._settings, self._memory, self._powers, self._given_away)
        self._generation += 1
        self._opened_at, self._slow_at, self._idle = now, now, 0
        self._failed = None
        return session

    def _find_powers(self) -> None:
        self._close_powers()
        nvidia = [each for each in gpu_pci.gpus(self._fs) if each.vendor == "NVIDIA"]
        self._powers = {each.address: RuntimePower(each.path) for each in nvidia if each.driver in ("nvidia", "")}
        self._given_away = {each.address for each in nvidia} - self._powers.keys()
        self._memory.look([each.address for each in nvidia])

    def _close_powers(self) -> None:
        for power in self._powers.values():
            power.close()
        self._powers = {}

    def _fall(self, now: float, error: Unavailable) -> None:
        """The driver is in trouble: let go, and try again later."""
        self._shut()
        self._failed, self._try_at = error, now + self._next_pause(now)
        self.problems = [error]

    def _next_pause(self, now: float) -> float:
        """Twice the one before, unless the driver was healthy in between."""
        if now - self._opened_at > _HEALTHY + self._pause:
            self._pause = self._pauses[0]
        self._opened_at = float("inf")
        pause, self._pause = self._pause, min(self._pause * 2, self._pauses[1])
        return pause

    def _shut(self) -> None:
        """Give NVML back."""
        session, self._session = self._session, None
        if session:
            self._generation += 1 + session.generation
            session.close()

    def _resting(self, now: float) -> bool:
        """Whether NVML stays given back because the GPUs sleep, or were idle and nobody has woken them since."""
        if self._rested_at is None:
            self._find_powers()
        asleep = [power.asleep() for power in self._powers.values()]
        if asleep and all(asleep):
            self._rested_at, self._slept = self._rested_at or now, True
            return True
        if self._rested_at is None or self._slept or now - self._rested_at > _AGAIN:
            self._rested_at, self._slept = None, False
            return False
        return True

    def _rest_if_idle(self, now: float) -> None:
        session = self._session
        if session is None or self._settings.release != "auto" or not any(power.managed for power in self._powers.values()):
            return
        self._idle = 0 if session.busy else self._idle + 1
        if self._idle >= _IDLE:
            self._shut()
            self._rested_at, self._slept = now, False

    def close(self) -> None:
        self._shut()
        self._close_powers()
        self._rested_at = None
