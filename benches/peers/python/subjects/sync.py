"""The group `sync`: what locks and semaphores cost, alone and between two processes."""

import mmap
from time import perf_counter

from subjects.place import stay_on
from subjects.timing import WARM_UP_EACH, median_time, nanoseconds_each, throughput


def lock_uncontended(library, options):
    return uncontended(library.Lock(), options)


def rlock_uncontended(library, options):
    return uncontended(library.RLock(), options)


def uncontended(lock, options):
    acquire, release = lock.acquire, lock.release  # faster than `with`

    def run(count):
        n = 0
        for _ in range(count):
            acquire()
            n += 1
            release()
        return n

    return nanoseconds_each(options, run)


def lock_contended2(library, options):
    lock = library.Lock()
    acquire, release = lock.acquire, lock.release
    shared = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")
    counter, arrived, others_steps = 0, 1, 2  # places in it

    def take_part(count):
        with lock:
            number = shared[arrived]
            shared[arrived] += 1
        stay_on(number)
        while shared[arrived] < 2:
            pass
        steps, more = 0, True
        while more:
            acquire()
            n = shared[counter]
            more = n < count
            if more:
                shared[counter] = n + 1
                steps += 1
            release()
        return steps

    def life(count):
        shared[others_steps] = take_part(count)

    def run(count):
        shared[counter] = shared[arrived] = 0
        other = library.Process(target=life, args=(count,))
        other.start()
        steps = take_part(count)
        other.join()
        assert other.exitcode == 0 and shared[counter] == count
        return steps + shared[others_steps]

    return throughput(options, "pairs/s", run)


def semaphore_uncontended(library, options):
    semaphore = library.Semaphore(1)
    acquire, release = semaphore.acquire, semaphore.release

    def run(count):
        n = 0
        for _ in range(count):
            acquire()
            n += 1
            release()
        return n

    return nanoseconds_each(options, run)


def wake_latency(library, options):
    there, back = library.Semaphore(0), library.Semaphore(0)
    rounds = options.count + WARM_UP_EACH

    def life():
        stay_on(1)
        for _ in range(rounds):
            there.acquire()
            back.release()

    def once():
        begun = perf_counter()
        there.release()
        back.acquire()
        return perf_counter() - begun, 1

    other = library.Process(target=life)
    other.start()
    stay_on(0)
    answer = median_time(options, once)
    other.join()
    assert other.exitcode == 0
    return answer


CASES = {
    "lock_uncontended": lock_uncontended,
    "rlock_uncontended": rlock_uncontended,
    "lock_contended2": lock_contended2,
    "semaphore_uncontended": semaphore_uncontended,
    "wake_latency": wake_latency,
}


def run(library, case, options):
    # Forked children share the memory, whatever the default of this Python is; locks cost the same.
    return CASES[case](library.get_context("fork"), options) if case in CASES else None
