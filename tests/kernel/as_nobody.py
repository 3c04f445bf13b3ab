"""Runs something in a child process without rights."""

from __future__ import annotations

import os
from collections.abc import Callable

NOBODY = 65534


def as_nobody(call: Callable[[], str], directory: str = "/") -> str:
    """What *call* returns in a forked child that has become nobody, working in *directory*; its error, if it raised one."""

    def become() -> None:
        os.chdir(directory)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)

    return in_child(become, call)


def in_child(become: Callable[[], None], call: Callable[[], str]) -> str:
    """What *call* returns in a forked child after *become*; the error, if one of them raised it."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            become()
            answer = call()
        except BaseException as error:  # nothing may reach pytest, which runs in this child too
            answer = repr(error)
        os.write(send, answer.encode())
        os._exit(0)
    os.close(send)
    with open(receive) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer
