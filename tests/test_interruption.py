"""Real processes, killed, stopped and interrupted, and a disk that is really full: what was finished stays, nothing is
done twice, and going on changes no bit."""
import json, os, random, selectors, signal, subprocess, sys
from dataclasses import asdict, replace

import psutil
import pytest
from filelock import FileLock, Timeout

from processes import BIN, BOUND, LONG, MANY, kill_often, records, start, stopped, wait_until
from sparse_lth.core import PART, load
from sparse_lth.study import done_in, jobs, makes
from sparse_lth.training import TrainConfig


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    "By name of a study: its file, and the records of a run that nobody disturbed"
    folder, known = tmp_path_factory.mktemp('undisturbed'), {}
    def get(name, study):
        if name not in known:
            (file := folder/f'{name}.json').write_text(json.dumps(asdict(study)))
            command = [BIN/'sparse-lth', 'run', file, '--store', folder/name]
            subprocess.run(command, check=True, capture_output=True, timeout=BOUND)
            known[name] = file, records(folder/name)
        return known[name]
    return get


STUDIES = pytest.mark.parametrize('name, study, options', [
    pytest.param('many', MANY, (), id='stacks'), pytest.param('many', MANY, ('--workers', 2), id='two workers'),
    pytest.param('long', LONG, (), id='long jobs')])


def check_killed(times, seed, undisturbed, store, name, study, options):
    "A run killed again and again gives the records of an undisturbed one, and leaves no file but whole ones"
    within = kill_often(times, *undisturbed(name, study), store, random.Random(seed), *options)
    assert within  # some were taken up within a network
    assert not [p for p in store.glob('jobs/*') if not PART.fullmatch(p.name) and p.suffix != '.safetensors']


@STUDIES
def test_killed_at_random_moments(undisturbed, tmp_path, name, study, options):
    check_killed(3, 0, undisturbed, tmp_path/'store', name, study, options)


@pytest.mark.slow
@STUDIES
def test_killed_thirty_times_in_all(undisturbed, tmp_path, name, study, options):
    check_killed(10, 1, undisturbed, tmp_path/'store', name, study, options)


@pytest.mark.parametrize('name, study', [('many', MANY), ('long', LONG)])
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_interrupted(undisturbed, tmp_path, name, study, number):
    "Ctrl-C, and what a scheduler sends, amid the training of networks: the state of this very step is kept"
    file, expected = undisturbed(name, study)
    store = tmp_path/'store'
    process = start(file, store, stop=('checkpoints', 100, 'after'))
    assert stopped(process)
    process.send_signal(number)
    said = process.communicate('go on\n', timeout=BOUND)[1]
    assert process.returncode == 130
    assert 'what is finished or begun is kept' in said and 'Run the same command again to go on' in said
    assert 'Traceback' not in said
    assert list(store.glob('checkpoints/*.safetensors'))
    assert not [p for p in store.rglob('*') if PART.fullmatch(p.name)]
    again = start(file, store)
    said = again.communicate(timeout=BOUND)[1]
    assert again.returncode == 0, said
    assert records(store) == expected and not list(store.glob('checkpoints/*.safetensors'))


def held(store):
    "The jobs whose locks some process holds"
    locks = {path.stem: FileLock(path) for path in store.glob('locks/*.lock') if path.stem not in ('records', 'images', 'models')}
    free = []
    for name, lock in locks.items():
        try: lock.acquire(timeout=0)
        except Timeout: continue
        free.append(name)
        lock.release()
    return locks.keys() - set(free)


def kept_by(locks):
    "The keys of the jobs that these locks are for, and of all that need them"
    kept = set()
    for job in jobs(MANY):  # needs come before what needs them
        if job.lock in locks or any(need[:len(job.key)] in kept for need in job.needs): kept.add(job.key)
    return kept


def test_a_living_process_keeps_its_jobs(undisturbed, tmp_path):
    "While the holder of a lock lives, even stopped, nobody else does its jobs; once it is dead, somebody does"
    (file, expected), store = undisturbed('many', MANY), tmp_path/'store'
    first = start(file, store, stop=('checkpoints', 1, 'after'))
    assert stopped(first)                                                                 # amid its first networks
    first.send_signal(signal.SIGSTOP)
    kept = kept_by(held(store))
    others = {name for job in jobs(MANY) if job.key not in kept for name in makes(job)}
    assert kept and others
    second = start(file, store, '--quiet')
    try:
        wait_until(lambda: others <= done_in(store) or second.poll() is not None, 'the second has done all that it may')
        assert second.poll() is None and not {name[:16] for name in done_in(store)} & kept
    finally: first.kill()
    assert second.wait(BOUND) == 0
    first.communicate()
    second.communicate()
    assert records(store) == expected


COUNTING = """
import json, sys, sparse_lth.study as study
trained, fit_many = [], study.fit_many
def counting(model, states, *args, **kwargs):
    if not trained:
        print('begins to train', flush=True)
        sys.stdin.readline()
    trained.append(len(states))
    return fit_many(model, states, *args, **kwargs)
study.fit_many = counting
frame = study.run(study.study_from(json.loads(sys.argv[1])), sys.argv[2], progress=False)
print(json.dumps([sum(trained), len(frame)]))
"""


def wait_for_lines(processes, n):
    "Read a line from so many of some processes, whichever say one first"
    with selectors.DefaultSelector() as waiting:
        for p in processes: waiting.register(p.stdout, selectors.EVENT_READ)
        while n:
            ready = waiting.select(BOUND)
            assert ready, 'no process began to train'
            for key, _ in ready:
                assert key.fileobj.readline() == 'begins to train\n'
                waiting.unregister(key.fileobj)
                n -= 1


def test_together_nothing_twice(tmp_path):
    "Four at once on one new store train every network once, and each gives all records"
    study = replace(MANY, seeds=(0, 1), sparsities=(.8,))
    command = [sys.executable, '-c', COUNTING, json.dumps(asdict(study)), tmp_path/'store']
    pipes = dict.fromkeys(('stdin', 'stdout', 'stderr'), subprocess.PIPE)
    together = [subprocess.Popen(command, text=True, **pipes) for _ in range(4)]
    wait_for_lines(together, 2)  # the dense networks of either width
    for p in together:
        p.stdin.write('go on\n')
        p.stdin.flush()
    said = [p.communicate(timeout=BOUND)[0].splitlines()[-1] for p in together]
    trained, seen = zip(*map(json.loads, said))
    assert sum(trained) == sum(j.stage != 'match' for j in jobs(study)) and sum(n > 0 for n in trained) > 1
    assert set(seen) == {len(records(tmp_path/'store'))} == {2 * 2 * 6}


def test_helpers_end_with_their_master(undisturbed, tmp_path):
    file, store = undisturbed('many', MANY)[0], tmp_path/'store'
    process = start(file, store, '--workers', 2, stop=('jobs', 3, 'after'))
    assert stopped(process)
    helpers = psutil.Process(process.pid).children()
    assert len(helpers) == 1
    process.kill()
    psutil.wait_procs(helpers, timeout=BOUND)
    assert not [h for h in helpers if h.is_running() and h.status() != psutil.STATUS_ZOMBIE]
    process.communicate()


def test_any_damage_is_mended(undisturbed, tmp_path):
    "A byte flipped somewhere in many files, one truncated, one empty, one a folder's worth of nonsense"
    (file, expected), store, rng = undisturbed('many', MANY), tmp_path/'store', random.Random(1)
    assert start(file, store).wait(BOUND) == 0
    paths = rng.sample(sorted(store.glob('jobs/*.safetensors')), 12)
    for path in paths:
        content = bytearray(path.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
    paths[0].write_bytes(paths[0].read_bytes()[:200])
    paths[1].write_bytes(b'')
    (store/'records.jsonl').write_bytes((store/'records.jsonl').read_bytes()[:-333] + b'\xff\x00{}')
    process = start(file, store)
    said = process.communicate(timeout=BOUND)[1]
    assert process.returncode == 0, said
    assert all(path.name in said for path in paths)
    assert {p.name for p in (store/'set-aside').iterdir()} == {p.name for p in paths}
    assert records(store) == expected


def test_full_disk(undisturbed, tmp_path):
    "A disk of half a megabyte, in a mount namespace of its own"
    file, expected = undisturbed('many', MANY)
    disk, copy = tmp_path/'disk', tmp_path/'copy'
    disk.mkdir()
    script = f'mount -t tmpfs -o size=500k tmpfs {disk} && {{ {BIN/"sparse-lth"} run {file} --store {disk/"store"}; code=$?; cp -r {disk} {copy}; exit $code; }}'
    if subprocess.run(['unshare', '-rm', 'true'], capture_output=True).returncode: pytest.skip('this system gives no mount namespace (unshare -rm)')
    done = subprocess.run(['unshare', '-rm', 'sh', '-c', script], capture_output=True, text=True, timeout=BOUND)
    assert done.returncode == 1, done.stderr
    said = [line for line in done.stderr.replace('\r', '\n').splitlines() if line.startswith('sparse-lth:')]
    assert len(said) == 1 and 'No space left on device' in said[0] and 'make room or choose another folder' in said[0]
    assert 'Traceback' not in done.stderr
    files = [p for p in copy.rglob('*') if p.is_file()]
    assert not [p for p in files if PART.fullmatch(p.name) or PART.fullmatch(p.parent.name)]
    finished = [p for p in files if p.suffix == '.safetensors']
    assert finished and not list(copy.glob('store/failed/*'))
    for p in finished: load(p)                                                            # whole, by its checksum
    assert start(file, copy/'store').wait(BOUND) == 0  # on a larger disk it goes on
    assert records(copy/'store') == expected


def test_the_console_says_why_jobs_failed(tmp_path, console):
    (tmp_path/'wild.json').write_text(json.dumps(asdict(replace(MANY, widths=(32,), seeds=(0,), sparsities=(.8,), sparse=TrainConfig(4, 1e30, batch_size=64)))))
    done = console('run', tmp_path/'wild.json', '--store', tmp_path/'store')
    assert done.returncode == 1 and 'The training loss became' in done.stderr and '3 of 14 jobs failed' in done.stderr and 'Traceback' not in done.stderr
    assert console('status', tmp_path/'wild.json', '--store', tmp_path/'store').stdout.count('The training loss became') == 3
    again = console('run', tmp_path/'wild.json', '--store', tmp_path/'store')             # not tried again unless asked
    assert again.returncode == 1 and 'The training loss became' not in again.stderr
    retried = console('run', tmp_path/'wild.json', '--store', tmp_path/'store', '--retry')
    assert retried.returncode == 1 and retried.stderr.count('The training loss became') == 3
    assert os.listdir(tmp_path/'store'/'failed')
