"Runs of a study in processes of their own, to be killed; used by tests and by benchmarks/study.py, so without pytest."
import json, signal, subprocess, sys, time
from pathlib import Path

from sparse_lth.study import Study
from sparse_lth.training import TrainConfig

BIN = Path(sys.executable).parent
CONFIG = dict(batch_size=64)
MANY = Study(widths=(32, 64), seeds=(0, 1, 2), sparsities=(.8, .9), dense=TrainConfig(12, .08, **CONFIG), imp=TrainConfig(2, .02, **CONFIG), sparse=TrainConfig(16, .1, **CONFIG))
LONG = Study(model='resnet20', widths=(1/4,), seeds=(0,), sparsities=(.8,), starts=('lth', 'permuted'), dense=TrainConfig(24, .08, channels_last=True, **CONFIG),
             imp=TrainConfig(1, .02, channels_last=True, **CONFIG), sparse=TrainConfig(20, .1, channels_last=True, **CONFIG))


def records(store):
    "Sorted by hash, without what may differ between equal runs"
    rows = [json.loads(line) for line in (store/'records.jsonl').read_text().splitlines()]
    return sorted(({k: v for k, v in r.items() if k != 'provenance'} for r in rows), key=lambda r: r['config_hash'])


def start(study, store, *more):
    "A run in a process of its own"
    listen = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)              # a background shell would have it ignored
    return subprocess.Popen([BIN/'sparse-lth', 'run', study, '--store', store, *map(str, more)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=listen)


def kill_often(times, study, expected, store, rng, *options):
    "Kill a run that often, each time at a random moment; where it was too fast, take results away and begin again"
    killed = begun = 0
    while killed < times:
        process = start(study, store, '--checkpoint', .2, *options)
        time.sleep(rng.uniform(1, 6))
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        begun += bool(list(store.glob('checkpoints/*.safetensors')))
        if process.returncode == 0:
            done = sorted(store.glob('jobs/*.safetensors'))
            for path in rng.sample(done, len(done) // 2): path.unlink()
    process = start(study, store, *options)
    said = process.communicate(timeout=600)[1]
    assert process.returncode == 0, said
    assert records(store) == expected
    return begun
