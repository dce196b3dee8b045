import os, shutil, subprocess, sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
CIFAR = os.environ.get('CIFAR10_IMAGES')                                          # CIFAR-10 as a folder or archive of images, where there is one


@pytest.fixture
def console():
    "Run `sparse-lth` to its end in a process of its own"
    def run(*args, **kwargs):
        return subprocess.run([BIN/'sparse-lth', *map(str, args)], capture_output=True, text=True, timeout=600, **kwargs)
    return run


@pytest.fixture
def checkout(tmp_path):
    "A copy of the files that git tracks or would track"
    names = subprocess.run(['git', 'ls-files', '-co', '--exclude-standard'], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in names:
        if (ROOT/name).is_file():
            (tmp_path/'copy'/name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT/name, tmp_path/'copy'/name)
    return tmp_path/'copy'
