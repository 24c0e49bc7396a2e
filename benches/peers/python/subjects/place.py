"""Where a process runs, as in the programs in Rust."""

import os


def stay_on(number, places=sorted(os.sched_getaffinity(0))):
    """Keeps the calling thread on one of the processors that were there at first."""
    os.sched_setaffinity(0, [places[number % len(places)]])
