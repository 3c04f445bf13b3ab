"""Runs something in a child process without rights."""

from __future__ import annotations

import os
from collections.abc import Callable

NOBODY = 65534


def as_nobody(call: Callable[[], str], directory: str = "/") -> str:
    """What *call* returns in a forked child that has become nobody, working in *directory*; its error, if it raised one."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.chdir(directory)
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
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
