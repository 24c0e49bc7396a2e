"""The group `pool`: jobs through a pool of processes."""

import queue

from subjects.timing import throughput


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
        return throughput(options, "jobs/s", lambda jobs: run(pool, jobs))
    finally:
        pool.terminate()
        pool.join()


def run(library, case, options):
    return tiny_oneway(library, options) if case == "tiny_oneway" else None
