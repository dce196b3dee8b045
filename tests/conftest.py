import os, shutil, subprocess, sys
from pathlib import Path

import pytest

os.environ.setdefault('OMP_NUM_THREADS', '1')  # also of all processes that tests start
ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
CIFAR = os.environ.get('CIFAR10_IMAGES')  # a folder or archive of images, where there is one


@pytest.fixture
def console():
    "Run `sparse-lth` to its end in a process of its own"
    def run(*args, **kwargs):
        command = [BIN/'sparse-lth', *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, timeout=1000, **kwargs)
    return run


def copy_checkout(to):
    "Copy the files that git tracks or would track"
    command = ['git', 'ls-files', '-co', '--exclude-standard']
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        if not (ROOT/name).is_file(): continue
        (to/name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT/name, to/name)
    return to


@pytest.fixture
def checkout(tmp_path):
    "A copy of the checkout, which a test may change"
    return copy_checkout(tmp_path/'copy')
