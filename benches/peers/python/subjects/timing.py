"""How a sample is taken, as in the programs in Rust."""

from time import perf_counter

WARM_UP = 1_000
WARM_UP_EACH = 3


def throughput(options, unit, run, warm_up=WARM_UP):
    """How many a second. `run` does as many as it is told and gives the sum of their results."""
    run(warm_up)
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
    times, checksum = sorted_times(options, WARM_UP_EACH, once)
    middle = len(times) // 2
    return {"value": (times[middle] + times[~middle]) * 1e6 / 2, "unit": "µs", "checksum": checksum}


def percentile_time(options, percent, once):
    """The time, in nanoseconds, within which so many of a hundred calls of `once` are done."""
    times, checksum = sorted_times(options, WARM_UP, once)
    within = max(-(-len(times) * percent // 100), 1)
    return {"value": times[within - 1] * 1e9, "unit": "ns", "checksum": checksum}


def first_time(options, once):
    """The time of the one call of `once`, in milliseconds, in a process that has done nothing yet."""
    assert options.count == 1
    seconds, checksum = once()
    return {"value": seconds * 1e3, "unit": "ms", "checksum": checksum}


def sorted_times(options, warm_up, once):
    for _ in range(warm_up):
        once()
    times, checksum = [], 0
    for _ in range(options.count):
        seconds, adds = once()
        times.append(seconds)
        checksum += adds
    return sorted(times), checksum
