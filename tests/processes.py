"Runs of a study in processes of their own, to be killed; used by tests and by benchmarks/study.py, so without pytest."
import json, signal, subprocess, sys, time
from pathlib import Path

from sparse_lth.study import Study
from sparse_lth.training import TrainConfig

BIN, STOPPING = Path(sys.executable).parent, Path(__file__).with_name('stopping.py')
CONFIG, CONV = dict(batch_size=64), dict(batch_size=64, channels_last=True)
MANY = Study(widths=(32, 64), seeds=(0, 1, 2), sparsities=(.8, .9), dense=TrainConfig(6, .08, **CONFIG),
             imp=TrainConfig(1, .02, **CONFIG), sparse=TrainConfig(8, .1, **CONFIG))
LONG = Study(model='resnet20', widths=(1/4,), seeds=(0,), sparsities=(.8,), starts=('lth', 'permuted'),
             dense=TrainConfig(6, .08, **CONV), imp=TrainConfig(1, .02, **CONV), sparse=TrainConfig(6, .1, **CONV))
BOUND = 600                                   # seconds after which a test gives up; nothing should take a tenth of that


def records(store):
    "Sorted by hash, without what may differ between equal runs"
    rows = [json.loads(line) for line in (store/'records.jsonl').read_text().splitlines()]
    return sorted(({k: v for k, v in r.items() if k != 'provenance'} for r in rows), key=lambda r: r['config_hash'])


def start(study, store, *more, stop=None):
    "A run in a process of its own; with `stop` it waits at that moment, see `tests/stopping.py`"
    listen = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell would have it ignored
    program = [BIN/'sparse-lth'] if stop is None else [sys.executable, STOPPING, *map(str, stop)]
    quiet = [] if stop is None else ['--quiet', '--checkpoint', '0']                       # a checkpoint at every step
    command = [*program, 'run', study, '--store', store, *quiet, *map(str, more)]
    pipes = dict.fromkeys(('stdin', 'stdout', 'stderr'), subprocess.PIPE)
    return subprocess.Popen(command, text=True, preexec_fn=listen, **pipes)


def stopped(process):
    "Wait until a run is where it was told to stop; False if it ended before"
    return any(line.startswith('stopped where') for line in process.stdout)


def wait_until(condition, what, seconds=BOUND):
    "Wait for a condition, and give up with a sentence"
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end: raise TimeoutError(f'waited {seconds} s in vain until {what}')
        time.sleep(.02)


def kill_often(times, study, expected, store, rng, *options):
    "Kill a run that often, at random moments; where it had ended, take results away. How many kills hit a training"
    within = 0
    for _ in range(times):
        folder = rng.choice(['jobs', 'checkpoints'])
        number = rng.randrange(1, 15 if folder == 'jobs' else 200)
        process = start(study, store, *options, stop=(folder, number, rng.choice(['before', 'after'])))
        reached = stopped(process)
        process.kill()
        process.communicate()
        if not reached: take_away_half(store, rng)
        within += reached and bool(list(store.glob('checkpoints/*.safetensors')))
    process = start(study, store, *options)
    said = process.communicate(timeout=BOUND)[1]
    assert process.returncode == 0, said
    assert records(store) == expected
    return within


def take_away_half(store, rng):
    "Delete half of the results of a store, so that there is something to do again"
    done = sorted(store.glob('jobs/*.safetensors'))
    for path in rng.sample(done, len(done) // 2): path.unlink()
