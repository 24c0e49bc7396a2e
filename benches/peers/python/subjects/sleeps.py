"""How many times those who do the work have gone to sleep, as in the programs in Rust."""

import os
from pathlib import Path

from subjects.timing import WARM_UP


def per_thousand(options, run):
    run(WARM_UP)
    before = of_family()
    checksum = run(options.count)
    sleeps = max(of_family() - before, 1)
    return {"value": sleeps * 1e3 / options.count, "unit": "sleeps/1,000 jobs", "checksum": checksum}


def of_family():
    children = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        if text := text_of(stat):
            children.setdefault(int(text.rpartition(")")[2].split()[1]), []).append(int(stat.parent.name))
    family, sleeps = [os.getpid()], 0
    while family:
        pid = family.pop()
        family += children.pop(pid, [])
        for status in Path(f"/proc/{pid}/task").glob("*/status"):
            for line in text_of(status).splitlines():
                if line.startswith("voluntary_ctxt_switches:"):
                    sleeps += int(line.split()[1])
    return sleeps


def text_of(path):
    try:
        return path.read_text()
    except OSError:
        return ""  # it has ended meanwhile
