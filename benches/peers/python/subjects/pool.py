"""The group `pool`: jobs through a pool of processes."""

import queue
import time

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
        checksum = run(pool, options.count)
        seconds = time.perf_counter() - begun
    finally:
        pool.terminate()
        pool.join()
    return {"value": options.count / seconds, "unit": "jobs/s", "checksum": checksum}


def run(library, case, options):
    return tiny_oneway(library, options) if case == "tiny_oneway" else None
