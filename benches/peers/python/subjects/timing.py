"""How a sample is taken, as in the programs in Rust."""

from time import perf_counter

WARM_UP = 1_000
WARM_UP_EACH = 3


def throughput(options, unit, run):
    """How many a second. `run` does as many as it is told and gives the sum of their results."""
    run(WARM_UP)
    begun = perf_counter()
    checksum = run(options.count)
    seconds = perf_counter() - begun
    return {"value": options.count / seconds, "unit": unit, "checksum": checksum}


def nanoseconds_each(options, run):
    """Nanoseconds for each: the reverse of throughput, for what is too short to be timed by itself."""
    answer = throughput(options, "", run)
    return {**answer, "value": 1e9 / answer["value"], "unit": "ns"}


def median_time(options, once):
    """The median of the times that calls of `once` give, in microseconds.

    `once` gives seconds, and what it adds to the checksum.
    """
    for _ in range(WARM_UP_EACH):
        once()
    times, checksum = [], 0
    for _ in range(options.count):
        seconds, adds = once()
        times.append(seconds)
        checksum += adds
    times.sort()
    middle = len(times) // 2
    return {"value": (times[middle] + times[~middle]) * 1e6 / 2, "unit": "µs", "checksum": checksum}
