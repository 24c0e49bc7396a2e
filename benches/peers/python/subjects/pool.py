"""The group `pool`: jobs through a pool of processes."""

import collections
import importlib
import queue
from time import perf_counter

from subjects.place import stay_on
from subjects.sleeps import per_thousand
from subjects.timing import WARM_UP_EACH, first_time, median_time, percentile_time, throughput


def increment(x):
    return x + 1


def tiny_oneway(library, options):
    """How many tiny jobs, each a message of its own, in a second."""
    return tiny(library, options, lambda run: throughput(options, "jobs/s", run))


def sleeps(library, options):
    """How often somebody goes to sleep for a thousand of them."""
    return tiny(library, options, lambda run: per_thousand(options, run))


def tiny(library, options, measure):
    """Tiny jobs, each a message of its own.

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
        return measure(lambda jobs: run(pool, jobs))
    finally:
        pool.terminate()
        pool.join()


def latency(library, options, percent):
    """One job after the other, nothing else in flight: the caller on one processor, the worker on another."""
    pool = library.Pool(options.workers)
    job = 0

    def once():
        nonlocal job
        job += 1
        begun = perf_counter()
        result = pool.apply(increment, (job,))
        return perf_counter() - begun, int(result == job + 1)

    try:
        pool.apply(stay_on, (1,))
        stay_on(0)
        return percentile_time(options, percent, once)
    finally:
        pool.terminate()
        pool.join()


def give_back(payload):
    return payload


def echo(library, options):
    """Bytes there and back, nothing else in flight."""
    pool = library.Pool(options.workers)
    payload = bytes([7]) * options.bytes

    def once():
        nonlocal payload
        begun = perf_counter()
        payload = pool.apply(give_back, (payload,))
        return perf_counter() - begun, int(payload == bytes([7]) * options.bytes)

    try:
        return median_time(options, once)
    finally:
        pool.terminate()
        pool.join()


def echoes(library, options):
    """Several of them at a time."""
    pool = library.Pool(options.workers)
    payload = bytes([7]) * options.bytes

    def run(jobs):
        whole, under_way = 0, collections.deque()
        for _ in range(jobs):
            if len(under_way) == options.window:
                whole += len(under_way.popleft().get()) == options.bytes
            under_way.append(pool.apply_async(give_back, (payload,)))
        return whole + sum(len(each.get()) == options.bytes for each in under_way)

    try:
        return throughput(options, "echoes/s", run, WARM_UP_EACH)
    finally:
        pool.terminate()
        pool.join()


def increment_second(pair):
    name, x = pair
    return name, x + 1


def tiny_map(library, options):
    """Numbers through Pool.map, in chunks of its own choice."""
    return mapped(library, options, lambda pool, items: sum(pool.map(increment, range(items))))


def tiny_map_struct(library, options):
    """Pairs of a string and a number, likewise."""

    def run(pool, items):
        return sum(x for _, x in pool.map(increment_second, (("billiard", x) for x in range(items))))

    return mapped(library, options, run)


def mapped(library, options, run):
    pool = library.Pool(options.workers)
    try:
        return throughput(options, "items/s", lambda items: run(pool, items))
    finally:
        pool.terminate()
        pool.join()


def start_to_first_result(library, options):
    """From nothing to the first result. What a library imports only when it is used is imported before."""
    if hasattr(library, "ProcessPoolExecutor"):  # reading the name imports it
        Pool, first, end = library.ProcessPoolExecutor, submitted, library.ProcessPoolExecutor.shutdown
    else:
        importlib.import_module("multiprocessing.pool")
        Pool, first, end = library.Pool, applied, lambda pool: pool.terminate()
    pools = []

    def once():
        begun = perf_counter()
        pools.append(Pool(options.workers))
        result = first(pools[0])
        return perf_counter() - begun, result

    answer = first_time(options, once)
    end(pools[0])
    return answer


def applied(pool):
    return pool.apply(increment, (0,))


def submitted(executor):
    return executor.submit(increment, 0).result()


CASES = {
    "tiny_oneway": tiny_oneway,
    "sleeps": sleeps,
    "latency_p50": lambda library, options: latency(library, options, 50),
    "latency_p99": lambda library, options: latency(library, options, 99),
    "tiny_map": tiny_map,
    "tiny_map_struct": tiny_map_struct,
    "start_to_first_result": start_to_first_result,
}


def run(library, case, options):
    if case.startswith("echo_"):
        return echoes(library, options) if case.endswith("_in_flight") else echo(library, options)
    return CASES[case](library, options) if case in CASES else None
