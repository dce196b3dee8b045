"""What the study engine costs, and what it bears: planning, store, helpers, reading, killing.

    python benchmarks/study.py [--quick]

Rounds of three runs of the default study, one after another, each in a new process with one thread: by hand (the same networks through
`fit_many`, `imp_many`, `match_activations` and `starts`, kept in memory and nowhere else), by `sparse_lth.study.run` into a new store, and the same with two workers.
A ratio is that of the seconds of one round; median and spread go to results/benchmarks/study.json, with whether planning and reading keep within their bounds. Last, a run
is killed thirty times at random moments, and its records compared with those of an undisturbed one.
"""
import hashlib, json, os, random, resource, statistics, subprocess, sys, tempfile, time
from dataclasses import replace
from pathlib import Path

os.environ['OMP_NUM_THREADS'] = '1'
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT/'tests'))
from sparse_lth.core import derived_seed, sparsity
from sparse_lth.data import Batches, digits
from sparse_lth.matching import match_activations
from sparse_lth.models import MLP, init_state
from sparse_lth.pruning import imp_many
from sparse_lth.study import Study, keep_memory, plan, results, run
from sparse_lth.symmetry import mlp_spec
from sparse_lth.training import evaluate, fit_many
from sparse_lth.transfer import starts


def by_hand(study):
    "The default study without engine or store; accuracies by (width, sparsity, start, seed)"
    found = {}
    for width in study.widths:
        model, data = MLP(64, width, width, 10), [digits(derived_seed(s, 'split')) for s in study.seeds]
        note = lambda at, start, seed, d, state, masks=None: found.__setitem__((width, at, start, seed), (evaluate(model, d, state=state), masks and sparsity(masks, model)))
        dense = {}
        runs = fit_many(model, [init_state(model, derived_seed(s, f'init_{n}')) for s in study.seeds for n in 'ab'], [d for d in data for _ in 'ab'], study.dense,
                        seeds=[derived_seed(s, f'order_{n}') for s in study.seeds for n in 'ab'], snapshots=study.rewinds)
        for i, (s, d) in enumerate(zip(study.seeds, data)):
            dense[s] = runs[2 * i:2 * i + 2]
            for n, r in zip('AB', dense[s]): note(0., n, s, d, r.state)
        chains = imp_many(model, [dense[s][0].state for s in study.seeds], data, study.imp, sparsities=study.sparsities, seeds=[derived_seed(s, 'imp') for s in study.seeds])
        begin, k = [], study.rewinds[0]
        for s, d, chain in zip(study.seeds, data, chains):
            a, b = MLP(64, width, width, 10), MLP(64, width, width, 10)
            for m, r in zip((a, b), dense[s]): m.load_state_dict(r.state)
            pi = match_activations(mlp_spec(a), a, b, Batches(d, 500)).perms
            for t in chain:
                note(t.sparsity, 'imp', s, d, t.state, t.masks)
                begin += [(s, d, t.sparsity, name, *start) for name, start in starts(mlp_spec(a), pi, t.masks, dense[s][0].traj, dense[s][1].traj, k).items()]
        seeds, images, at, names, states, masks = zip(*begin)
        for i, r in enumerate(fit_many(model, states, images, study.sparse.after(k), masks=masks, seeds=[derived_seed(s, 'sparse') for s in seeds])):
            note(at[i], names[i], seeds[i], images[i], r.state, masks[i])
    return found


def timed(f, *args, **kwargs):
    start = time.perf_counter()
    result = f(*args, **kwargs)
    return time.perf_counter() - start, result


def digest(found):
    "Losses and accuracies of all networks, to the last bit"
    return hashlib.sha256(repr(sorted((k, v[0]) for k, v in found.items())).encode()).hexdigest()


def one_way(way, study):
    "Seconds of one way in this process, and the digest of what it found"
    keep_memory()
    if way == 'by hand':
        seconds, found = timed(by_hand, study)
        return seconds, digest(found)
    with tempfile.TemporaryDirectory() as folder:
        seconds, frame = timed(run, study, Path(folder)/'store', workers=2 if way == 'two' else 1, progress=False)
    name = lambda r: r.network if r.start == 'dense' else r.start
    return seconds, digest({(r.width, r.sparsity, name(r), r.seed): ((r.test_loss, r.test_accuracy), None) for r in frame.itertuples()})


def rounds(n, *options):
    "Seconds of each way, round by round, each in a process of its own; raises unless all find the same"
    ways, seconds = ['by hand', 'one', 'two'], {}
    for i in range(n):
        found = set()
        for way in ways[i % 3:] + ways[:i % 3]:                                           # another order each time
            done = subprocess.run([sys.executable, __file__, '--way', way, *options], capture_output=True, text=True, check=True)
            t, bits = json.loads(done.stdout)
            seconds.setdefault(way, []).append(t)
            found.add(bits)
        assert len(found) == 1
        print(f"round {i + 1} of {n}: engine over by hand {seconds['one'][-1] / seconds['by hand'][-1]:.3f}, one worker over two {seconds['one'][-1] / seconds['two'][-1]:.2f}", flush=True)
    return seconds


def planning():
    "Seconds and gigabytes for a plan of 100,000 jobs"
    study = Study(seeds=tuple(range(834)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, table = timed(plan, study)
    return int(table.jobs['all']), seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20


def reading():
    "Seconds for reading the records of 100,000 networks"
    with tempfile.TemporaryDirectory() as folder:
        line = (ROOT/'results'/'digits.jsonl').read_text().splitlines()[0]
        record = json.loads(line)
        (path := Path(folder)/'many.jsonl').write_text(''.join(json.dumps(record | {'seed': i, 'config_hash': f'{i:016x}'}) + '\n' for i in range(100_000)))
        seconds, frame = timed(results, path)
        assert len(frame) == 100_000
    return seconds


def kills(times):
    "Kill a run that often; raises unless its records come out the same"
    import processes as t
    from dataclasses import asdict
    with tempfile.TemporaryDirectory() as folder:
        folder, begun = Path(folder), 0
        for name, study in ('many', t.MANY), ('long', t.LONG):
            (file := folder/f'{name}.json').write_text(json.dumps(asdict(study)))
            subprocess.run([t.BIN/'sparse-lth', 'run', file, '--store', folder/name], check=True, capture_output=True)
            begun += t.kill_often(times // 2, file, t.records(folder/name), folder/f'{name}-killed', random.Random(1), *(('--workers', 2) if name == 'many' else ()))
    return begun


if __name__ == '__main__':
    torch.set_num_threads(1)
    quick = '--quick' in sys.argv
    study = replace(Study(), seeds=(0, 1), widths=(32,)) if quick else Study()
    if '--way' in sys.argv:
        print(json.dumps(one_way(sys.argv[sys.argv.index('--way') + 1], study)))
        sys.exit()
    n_jobs, plan_s, plan_gb = planning()
    read_s = reading()
    print(f'{n_jobs} jobs planned in {plan_s:.1f} s and {plan_gb:.2f} GB; 100,000 records read in {read_s:.1f} s', flush=True)
    seconds = rounds(1, '--quick') if quick else rounds(5)
    report = lambda x: dict(median=round(statistics.median(x), 3), low=round(min(x), 3), high=round(max(x), 3))
    out = dict(what='the default study, one thread per process: seconds of the engine over those by hand, and of one worker over two', torch=torch.__version__, rounds=len(seconds['one']),
               engine_over_by_hand=report([e / h for e, h in zip(seconds['one'], seconds['by hand'])]), one_worker_over_two=report([o / t for o, t in zip(seconds['one'], seconds['two'])]),
               same_bits=True, jobs_planned=n_jobs, planned_within_5_s=plan_s < 5, planned_within_1_gb=plan_gb < 1, records_read=100_000, read_within_3_s=read_s < 3)
    begun = kills(4 if quick else 30)
    out |= dict(kills=4 if quick else 30, kills_within_a_network=begun, records_the_same=True)
    print(json.dumps(out, indent=1))
    if not quick: (ROOT/'results'/'benchmarks'/'study.json').write_text(json.dumps(out, indent=1) + '\n')
