"Every benchmark runs, in its quick form; what it measures is not looked at, since that is the machine's."
import subprocess, sys

import pytest

from conftest import CIFAR, ROOT

SCRIPTS = sorted((ROOT/'benchmarks').glob('*.py'))


@pytest.mark.slow
@pytest.mark.parametrize('path', SCRIPTS, ids=lambda p: p.stem)
def test_quick(path, tmp_path):
    images = [CIFAR] if 'IMAGES' in path.read_text().partition('"""')[2].partition('"""')[0] else []
    if images == [None]: pytest.skip('no CIFAR-10 as an image folder: set CIFAR10_IMAGES to a folder or archive of it')
    published = lambda: {p: p.read_bytes() for p in (ROOT/'results').rglob('*') if p.is_file()}
    before = published()
    command = [sys.executable, path, *images, '--quick']
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert published() == before                                          # only whole measurements are published
