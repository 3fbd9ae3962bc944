"""The rehearsal of a boot: it leaves nothing, wherever it is broken off."""

from __future__ import annotations

import subprocess
import sys

# In an interpreter of its own: what is compared is all that a process has.
_PROGRAM = """
import gc, os, signal, sys, threading
from multikernel.kernel.rehearsal import rehearse

gc.disable()  # as in a zygote

def has():
    with open("/proc/self/maps") as maps:
        objects = [line for line in maps if "memfd" in line]
    fds = sorted(int(fd) for fd in os.listdir("/proc/self/fd"))
    tasks = len(os.listdir("/proc/self/task"))
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    return fds, objects, tasks, sorted(sys.modules), list(sys.meta_path), list(sys.path), handlers, os.getcwd()

steps = len(list(rehearse()))  # what it imports late, it imports now
before = has()
for after in range(steps + 1):
    rehearsal = rehearse()
    done = [next(rehearsal, "end") for _ in range(after + 1)]
    assert (done[-1] == "end") == (after == steps), done
    rehearsal.close()
    del rehearsal
    assert has() == before, (after, has(), before)
print(steps)
"""


def test_rehearsal_leaves_nothing_wherever_it_is_broken_off():
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 3
