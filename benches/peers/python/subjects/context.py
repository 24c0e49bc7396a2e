"""The group `context`: from the request for a process to its first byte, or to its status.

What a child needs is at the top and little; each child by `spawn` imports it.
"""

from time import perf_counter

WORD = b"\7"


def speak(parent):
    parent.send_bytes(WORD)


def nothing():
    pass


def touched(mib):
    """Private memory, every page of it touched, in small pages as the Rust programs have it."""
    import mmap

    length = mib << 20
    memory = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    except OSError:
        pass  # a kernel without huge pages
    for offset in range(0, length, 4096):
        memory[offset] = 1
    return memory


def run(library, case, options):
    from subjects.timing import median_time

    def to_first_byte():
        ours, theirs = library.Pipe(duplex=False)
        process = library.Process(target=speak, args=(theirs,))
        begun = perf_counter()
        process.start()
        word = ours.recv_bytes()
        seconds = perf_counter() - begun
        assert word == WORD
        process.join()
        return seconds, ended(process, ours, theirs)

    def to_joined():
        process = library.Process(target=nothing)
        begun = perf_counter()
        process.start()
        process.join()
        return perf_counter() - begun, ended(process)

    def ended(process, *others):
        well = process.exitcode == 0
        for each in (process, *others):
            each.close()
        return int(well)

    once = {"start": to_first_byte, "start_join": to_joined}
    method, _, what = case.removesuffix("_1gib").partition("_")
    if what not in once or method not in ("forkserver", "spawn"):
        return None
    if library.get_start_method() == "forkserver":
        library.set_forkserver_preload(["subjects.context"])  # a child finds it imported
    memory = touched(options.parent_mib)
    answer = median_time(options, once[what])
    memory.close()
    return answer
