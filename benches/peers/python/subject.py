"""Python's pools as subjects of the benchmarks: subject.py LIBRARY CASE --workers W --window K --jobs N

Prints one line of JSON: the case, the sample with its unit, what the results add up to, the library's version.
"""

import argparse
import importlib
import json
import platform
import queue
import time
from importlib import metadata

WARM_UP = 1_000


def increment(x):
    return x + 1


def tiny_oneway(library, options):
    """Tiny jobs, each a message of its own, in jobs per second.

    imap_unordered with chunksize=1 is the fast way for both libraries: its results come back through one iterator,
    where apply_async makes a handle with an event for each job, or calls back from the thread that receives. It takes
    its input as fast as it can, so the generator holds back what is over the window; tokens in a SimpleQueue cost less
    than a semaphore.
    """
    tokens = queue.SimpleQueue()
    for _ in range(options.window):
        tokens.put(None)

    def fed(jobs):
        for job in range(jobs):
            tokens.get()
            yield job

    def run(pool, jobs):
        total = 0
        for result in pool.imap_unordered(increment, fed(jobs), chunksize=1):
            tokens.put(None)
            total += result
        return total

    pool = library.Pool(options.workers)
    try:
        run(pool, WARM_UP)
        begun = time.perf_counter()
        checksum = run(pool, options.jobs)
        seconds = time.perf_counter() - begun
    finally:
        pool.terminate()
        pool.join()
    return {"value": options.jobs / seconds, "unit": "jobs/s", "checksum": checksum}


CASES = {"tiny_oneway": tiny_oneway}


def version_of(name):
    if name == "multiprocessing":  # has no version but Python's
        return platform.python_version()
    return metadata.version(name)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("library", choices=["billiard", "multiprocessing"])
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--window", type=int)
    parser.add_argument("--jobs", type=int)
    options = parser.parse_args()
    answer = CASES[options.case](importlib.import_module(options.library), options)
    print(json.dumps({"case": options.case, **answer, "version": version_of(options.library)}))


if __name__ == "__main__":
    main()
