"Real processes, really killed, and a disk that is really full: what was finished stays, and going on changes no bit."
import json, random, signal, subprocess, time

import pytest

from conftest import BIN
from sparse_lth.core import load

STUDY = ['reproduce', '--quick', '--seeds', '3']


def records(store):
    "Sorted by hash, without what may differ between equal runs"
    rows = [json.loads(line) for line in (store/'records.jsonl').read_text().splitlines()]
    return sorted(({k: v for k, v in r.items() if k != 'provenance'} for r in rows), key=lambda r: r['config_hash'])


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    "The records of a run that nobody disturbed, and how long it took"
    store = tmp_path_factory.mktemp('undisturbed')/'store'
    start = time.time()
    subprocess.run([BIN/'sparse-lth', *STUDY, '--store', store], check=True, capture_output=True, timeout=600)
    return records(store), time.time() - start


def test_killed_at_random_moments(undisturbed, tmp_path, console):
    expected, seconds = undisturbed
    store, rng, killed = tmp_path/'store', random.Random(0), 0
    for _ in range(5):
        process = subprocess.Popen([BIN/'sparse-lth', *STUDY, '--store', store], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(.3, 1) * seconds)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed >= 1
    end = console(*STUDY, '--store', store)
    assert end.returncode == 0, end.stderr
    assert records(store) == expected


def test_interrupted_from_the_keyboard(undisturbed, tmp_path, console):
    store = tmp_path/'store'
    listen = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)         # a background shell would have it ignored
    process = subprocess.Popen([BIN/'sparse-lth', *STUDY, '--store', store], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               text=True, preexec_fn=listen)
    while not list(store.glob('parts/dense-*')): time.sleep(.02)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert 'finished parts are kept' in said and 'Run the same command again to go on' in said and 'Traceback' not in said
    assert not list(store.rglob('*.part'))
    assert console(*STUDY, '--store', store).returncode == 0
    assert records(store) == undisturbed[0]


def test_full_disk(tmp_path):
    "A disk of half a megabyte, in a mount namespace of its own"
    disk, copy = tmp_path/'disk', tmp_path/'copy'
    disk.mkdir()
    script = f'mount -t tmpfs -o size=500k tmpfs {disk} && {{ {BIN/"sparse-lth"} {" ".join(STUDY)} --store {disk/"store"}; code=$?; cp -r {disk} {copy}; exit $code; }}'
    if subprocess.run(['unshare', '-rm', 'true'], capture_output=True).returncode: pytest.skip('this system gives no mount namespace (unshare -rm)')
    done = subprocess.run(['unshare', '-rm', 'sh', '-c', script], capture_output=True, text=True, timeout=600)
    assert done.returncode == 1, done.stderr
    said = [line for line in done.stderr.replace('\r', '\n').splitlines() if line.startswith('sparse-lth:')]
    assert len(said) == 1 and 'No space left on device' in said[0] and 'make room or choose another folder' in said[0]
    assert 'Traceback' not in done.stderr
    files = [p for p in copy.rglob('*') if p.is_file()]
    assert not [p for p in files if p.name.endswith('.part')]
    assert [p for p in files if p.suffix == '.safetensors']
    for p in files:
        if p.suffix == '.safetensors': load(p)                   # whole, by its checksum


def test_a_store_of_another_study_is_refused(undisturbed, tmp_path, console):
    store = tmp_path/'store'
    assert console(*STUDY, '--store', store).returncode == 0
    before = {p: p.read_bytes() for p in store.rglob('*') if p.is_file()}
    other = console('reproduce', '--quick', '--seeds', '2', '--store', store)
    assert other.returncode == 1 and 'store of another study, with seeds' in other.stderr and 'Traceback' not in other.stderr
    assert {p: p.read_bytes() for p in store.rglob('*') if p.is_file()} == before
