"""One pass against a pass per group: `match_activations` on ResNet-20, and how many images it needs.

    python benchmarks/matching.py [IMAGES] [--quick]

First, on random images, what one pass costs beyond running both networks: CPU time of `match_activations` over that
of the forward passes alone, on 512 images in batches of 128. Without IMAGES that is all, and the rest of the
results stays. (The process keeps the memory that it has had: how often glibc gives it back and has it zeroed again
depends on what ran before, and moves such a ratio by a third. Half of what is above 1 are the products in float64:
few operations, a twenty-seventh of those of the forward passes, but of 16 to 64 rows, where a product is far from a
processor's best.)

IMAGES is what `load_data` takes: 'cifar10', or a folder or tar archive with train/CLASS and test/CLASS of 32x32 images. Two networks are trained briefly on it. The plain side is what one would
write first: for each group, the part of both networks up to where the group is read runs over all batches, products in float64. It permutes nothing on the way, since
that would change no correlation. All sides see the same cached batches, in turn within one run, on one thread; a ratio is that of the times of one turn.
Results go to results/benchmarks/matching.json.
"""
import ctypes, json, statistics, sys, time
from pathlib import Path

import torch
from scipy.optimize import linear_sum_assignment

from sparse_lth.core import SparseLTHError
from sparse_lth.data import Batches, Data, load_data
from sparse_lth.matching import match_activations
from sparse_lth.models import ResNet20, init_state
from sparse_lth.symmetry import trace_spec
from sparse_lth.training import TrainConfig, fit


def trained_pair(width, data, batches):
    "Two networks from different inits, each trained for so many batches of 128"
    models = []
    for seed in 0, 1:
        model = ResNet20(width)
        model.load_state_dict(init_state(model, seed))
        part = Data(*(t[seed * batches * 128:][:batches * 128] for t in (data.train_x, data.train_y)), data.test_x, data.test_y, data.n_classes, data.mean, data.std)
        fit(model, part, TrainConfig(epochs=1, lr=.08, batch_size=128), seed=seed)
        models.append(model.eval())
    return models


def prefixes(model):
    "Per group of ResNet-20, the function from images to the activations where the group is read"
    blocks = [b for stage in (model.layer1, model.layer2, model.layer3) for b in stage]
    def upto(k):
        def run(x):
            x = model.bn1(model.conv1(x)).relu()
            for b in blocks[:k]: x = b(x)
            return x
        return run
    inner = lambda k: lambda x: blocks[k].bn1(blocks[k].conv1(upto(k)(x))).relu()
    names = [f'layer{i}.{j}' for i in (1, 2, 3) for j in range(3)]
    return {'conv1': upto(3), 'layer2.0.conv2': upto(6), 'layer3.0.conv2': upto(9)} | {f'{n}.conv1': inner(k) for k, n in enumerate(names)}


@torch.no_grad()
def pass_per_group(model_a, model_b, batches):
    "The plain version: a pass over the data for each group, prefix networks of both, float64 products"
    perms = {}
    for (g, run_a), run_b in zip(prefixes(model_a).items(), prefixes(model_b).values()):
        n = s_a = s_b = q_a = q_b = product = 0
        for x in batches:
            z_a, z_b = (run(x).transpose(0, 1).flatten(1).double() for run in (run_a, run_b))
            n, s_a, s_b, q_a, q_b = n + z_a.shape[1], s_a + z_a.sum(1), s_b + z_b.sum(1), q_a + z_a.square().sum(1), q_b + z_b.square().sum(1)
            product = product + z_b @ z_a.T
        sd = lambda s, q: (q / n - (s / n)**2).clamp(min=0).sqrt()
        c = (product / n - torch.outer(s_b, s_a) / n**2) / torch.outer(sd(s_b, q_b), sd(s_a, q_a))
        perms[g] = torch.from_numpy(linear_sum_assignment(c.nan_to_num().numpy(), maximize=True)[1])
    return perms


def objective_lost(match, reference):
    "How much smaller the sum of matched correlations is, measured by the reference's correlations"
    value = lambda perms: sum(c.gather(1, perms[g][:, None]).sum().item() for g, c in reference.correlations.items())
    return (value(reference.perms) - value(match.perms)) / value(reference.perms)


def timed(f):
    start = time.perf_counter()
    result = f()
    return time.perf_counter() - start, result


def keep_memory():
    "Let glibc keep what is freed, where there is a glibc"
    if not sys.platform.startswith('linux'): return
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is None: return
    trim_threshold, mmap_threshold, largest = -1, -3, 2**30
    mallopt(trim_threshold, largest)
    mallopt(mmap_threshold, largest)


def over_forward(turns):
    "CPU time of one pass of matching over that of the forward passes of both networks, in turn"
    keep_memory()
    g = torch.Generator().manual_seed(0)
    batches = [torch.randn(128, 3, 32, 32, generator=g) for _ in range(4)]
    model_a, model_b = (ResNet20(1).eval() for _ in 'ab')
    for seed, model in enumerate((model_a, model_b)): model.load_state_dict(init_state(model, seed))
    spec = trace_spec(model_a, batches[0][:2])

    @torch.no_grad()
    def forward():
        for x in batches:
            model_a(x)
            model_b(x)

    def cpu_seconds(f):
        start = time.process_time()
        f()
        return time.process_time() - start

    def match(): match_activations(spec, model_a, model_b, batches)
    forward()
    match()
    pairs = [(cpu_seconds(forward), cpu_seconds(match)) for _ in range(turns)]
    ratios = [matching / plain for plain, matching in pairs]
    spread = dict(median=statistics.median(ratios), low=min(ratios), high=max(ratios))
    return {name: round(ratio, 2) for name, ratio in spread.items()}


def compare(width, data, training, images, turns):
    "Ratios of times, turn by turn, and what each side finds"
    model_a, model_b = trained_pair(width, data, training)
    fast = [ResNet20(width).eval() for _ in 'ab']
    for f, m in zip(fast, (model_a, model_b)):
        f.load_state_dict(m.state_dict())
        f.to(memory_format=torch.channels_last)
    held_out = Data(data.train_x[-images:], data.train_y[-images:], data.test_x, data.test_y, data.n_classes, data.mean, data.std)
    plain = [x for x, _ in Batches(held_out, 64)]
    channels_last = [x.contiguous(memory_format=torch.channels_last) for x in plain]
    spec = trace_spec(model_a, plain[0][:2])
    sides = {'plain': lambda: pass_per_group(model_a, model_b, plain), 'fp32': lambda: match_activations(spec, model_a, model_b, plain),
             'fp32_channels_last': lambda: match_activations(spec, *fast, channels_last),
             'bf16_channels_last': lambda: match_activations(spec, *fast, channels_last, autocast=torch.bfloat16)}
    pass_per_group(model_a, model_b, plain[:1])
    for batches, models in (plain, (model_a, model_b)), (channels_last, fast):
        for dtype in None, torch.bfloat16: match_activations(spec, *models, batches[:1], autocast=dtype)
    runs = [{name: timed(side) for name, side in sides.items()} for _ in range(turns)]
    found = {name: result for name, (_, result) in runs[0].items()}
    perms = {name: r if name == 'plain' else r.perms for name, r in found.items()}
    report = lambda x: dict(median=round(statistics.median(x), 2), low=round(min(x), 2), high=round(max(x), 2))
    out = dict(width=width, images=images, training_batches=training, turns=turns, groups=len(spec.groups), mean_score=round(statistics.mean(found['fp32'].score.values()), 3))
    for name in list(sides)[1:]:
        same = sum(torch.equal(perms[name][g], perms['plain'][g]) for g in spec.groups)
        out[name] = dict(over_plain=report([r['plain'][0] / r[name][0] for r in runs]), identical_groups=same, objective_lost=round(objective_lost(found[name], found['fp32']), 6))
    return out


def enough_images(data, training, few, many):
    "How much of the objective is lost by matching on few images, by the correlations of many"
    model_a, model_b = (m.to(memory_format=torch.channels_last) for m in trained_pair(1, data, training))
    batches = lambda n: (x.contiguous(memory_format=torch.channels_last) for x, _ in Batches(data, 128, limit=n))
    spec = trace_spec(model_a, next(batches(2)))
    reference = match_activations(spec, model_a, model_b, batches(many))
    return dict(training_batches=training, of=many, mean_score=round(statistics.mean(reference.score.values()), 3),
                objective_lost={str(n): round(objective_lost(match_activations(spec, model_a, model_b, batches(n)), reference), 6) for n in few})


def write(**parts):
    "Put these parts of the results into the file, beside what stands there"
    out = Path(__file__).resolve().parents[1]/'results'/'benchmarks'/'matching.json'
    out.write_text(json.dumps(json.loads(out.read_text()) | parts, indent=1) + '\n')


if __name__ == '__main__':
    sources, quick = [a for a in sys.argv[1:] if not a.startswith('-')], '--quick' in sys.argv
    torch.set_num_threads(1)
    forward = over_forward(1 if quick else 9)
    print('one pass over the forward passes of both networks: {median} [{low}..{high}]'.format(**forward), flush=True)
    if not quick: write(over_forward=forward)
    if not sources:
        print("benchmarks/matching.py: the rest is left out, since it needs images: python benchmarks/matching.py IMAGES, "
              "with 'cifar10' or a folder or tar archive of 32x32 images")
        sys.exit()
    try: data = load_data(sources[0]).head(1024 if quick else 36_864)
    except SparseLTHError as e: sys.exit(f'benchmarks/matching.py: {e}')
    rows = [compare(1, data, 2 if quick else 120, 64 if quick else 512, 1 if quick else 5), compare(4, data, 1 if quick else 16, 64 if quick else 128, 1 if quick else 3)]
    for r in rows:
        print(f"width {r['width']}, {r['images']} images:", ', '.join('{0} {median} [{low}..{high}] times as fast, {1} of {2} groups identical, objective lost {3}'.format(
            n, r[n]['identical_groups'], r['groups'], r[n]['objective_lost'], **r[n]['over_plain']) for n in ('fp32', 'fp32_channels_last', 'bf16_channels_last')), flush=True)
    images = enough_images(data, 2 if quick else 120, (64,) if quick else (512, 1024, 2048, 4096), 256 if quick else 20_480)
    print(f"objective lost against {images['of']} images:", images['objective_lost'])
    if not quick:
        what = ('ResNet-20, one thread: time of a pass per group over that of match_activations, interleaved; images: '
                + Path(sources[0]).name)
        write(what=what, torch=torch.__version__, rows=rows, enough_images=images)
