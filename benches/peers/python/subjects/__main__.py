"""python -m subjects SUBJECT GROUP/CASE --workers W --window K --count N

Prints one line of JSON: the subject, the case, the sample with its unit, what the results add up to, the library's version.

It is run as a package on purpose: a child that multiprocessing has executed afresh imports the main module of its parent
again, unless that is the `__main__` of a package. So no child pays for what is imported here.
"""

import importlib
import json
import platform
import sys
from importlib import metadata
from types import SimpleNamespace


def options_in(words):
    names = [word.removeprefix("--").replace("-", "_") for word in words[::2]]
    return SimpleNamespace(**dict(zip(names, map(int, words[1::2]), strict=True)))


def version_of(library):
    if library in ("multiprocessing", "concurrent.futures"):  # have no version but Python's
        return platform.python_version()
    return metadata.version(library)


def main():
    subject, case, *words = sys.argv[1:]
    library, _, method = subject.partition(":")
    module = importlib.import_module(library)
    if method:
        module = module.get_context(method)
    group, _, name = case.partition("/")
    answer = importlib.import_module(f"subjects.{group}").run(module, name, options_in(words))
    if answer is None:
        sys.exit(f"{case}: no such case")
    print(json.dumps({"subject": subject, "case": case, **answer, "version": version_of(library)}))


main()
