"""`sparse-lth` in a process that stops where a test wants to kill it: at the moment when a file takes its place.

    python tests/stopping.py jobs 3 before run digits --store DIR

What a run leaves on the disk changes only when a file takes its place, so these are the moments that matter; no clock
has a part in it.
"""
import os, sys
from pathlib import Path

from sparse_lth.study import main

SIGN = 'stopped where it was told to\n'


def stop_at(folder, number, when):
    "Stop before or after the file of that number takes its place in a folder of the store"
    replace, count = os.replace, 0

    def counting(source, target):
        nonlocal count
        count += Path(target).parent.name == folder
        here = Path(target).parent.name == folder and count == number
        if here and when == 'before': wait()
        replace(source, target)
        if here and when == 'after': wait()
    os.replace = counting


def wait():
    "Say so, and wait until the test writes a line"
    print(SIGN, end='', flush=True)
    sys.stdin.readline()


if __name__ == '__main__':
    where, nth, moment, *arguments = sys.argv[1:]
    stop_at(where, int(nth), moment)
    sys.exit(main(arguments))
