"""How a sample is taken, as in the programs in Rust."""

WARM_UP_EACH = 3


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
