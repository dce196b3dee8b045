"""Training steps on a GPU: in one CUDA graph against a plain PyTorch loop, several networks in one graph against one after another, and both against what the hardware allows.

    python benchmarks/gpu.py [--data PATH] [--out FILE] [--again]     # some minutes; goes on where it was broken off
    python benchmarks/gpu.py --cpu                                    # tries every line without a GPU, and keeps nothing

PATH is a folder or archive of images with train/CLASS and test/CLASS, such as CIFAR-10; without it, bfloat16 is judged on scikit-learn's digits. Speed is measured on random bytes of CIFAR's
size, since their content costs no time. What is compared runs in turn, timed by CUDA events; medians and spread go to results/benchmarks/gpu.json, with the device's name, after each part.
Where there is no GPU, only the accuracies in bfloat16 are compared, for results/benchmarks/bf16.json.
"""
import argparse, json, statistics, tempfile, time
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sparse_lth.core import cuda_settings, derived_seed
from sparse_lth.cuda import console_cuda, cuda_graph, fit_graph, recorded, _ready
from sparse_lth.data import Batches, digits, image_folder
from sparse_lth.models import ResNet20, init_state
from sparse_lth.stats import sign_flip_test
from sparse_lth.training import TrainConfig, evaluate, _loss
from training import BATCH, masks_of, our_step, plain_step, random_images, seconds as host_seconds

FAST = dict(bf16=True, channels_last=True)
PASSES = 6                              # each output of a convolution is written and read at least so often: forward, BatchNorm, backward


def gpu_seconds(f):
    "By events on the GPU's own clock"
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    f()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000


def spread(x): return dict(median=float(f'{statistics.median(x):.4g}'), low=float(f'{min(x):.4g}'), high=float(f'{max(x):.4g}'))


def rounds(sides, n, seconds):
    "The times of all sides, in turn"
    for f in sides.values(): f()
    return [{name: seconds(f) for name, f in sides.items()} for _ in range(n)]


def replays(at, n, images, keep, **how):
    "A function that does so many steps of n networks in one graph"
    model = ResNet20(at.width).to(at.device)
    states = [init_state(model, s) for s in range(n)]
    jobs = [(state, images, masks_of(model), s, None) for s, state in enumerate(states)]
    config = TrainConfig(1, .02, augment=True, batch_size=at.batch, **how)
    g, replay = _ready(model, jobs, config, (), range(n), at.capture, keep)
    def steps(k):
        g.at.zero_()
        for _ in range(k): replay()
    return steps


def ceilings(at):
    "What this GPU reaches in bfloat16 products and in copying"
    n = 256 if at.cpu else 8192
    a, big = torch.randn(n, n, device=at.device, dtype=torch.bfloat16), torch.zeros(n * n * 8, device=at.device)
    into, product = torch.empty_like(big), torch.empty_like(a)
    took = rounds({'product': lambda: torch.mm(a, a, out=product), 'copy': lambda: into.copy_(big)}, at.n, at.seconds)
    best = {k: min(r[k] for r in took) for k in took[0]}
    return dict(flop_per_second=2 * n**3 / best['product'], bytes_per_second=2 * big.nbytes / best['copy'])


def floors(width, at, ceiling):
    "Seconds an epoch of 50,000 images can't be below on this GPU, by arithmetic and by memory traffic in bfloat16"
    model, values = ResNet20(width), []
    model.load_state_dict(init_state(model, 0))
    for m in model.modules():
        if isinstance(m, nn.Conv2d): m.register_forward_hook(lambda m, x, y: values.append(y[0].numel()))
    x, y = next(iter(Batches(random_images(2), 2)))
    with FlopCounterMode(display=False) as flops: _loss(model, x, y, False).backward()
    return dict(arithmetic=50_000 * flops.get_total_flops() / 2 / ceiling['flop_per_second'], memory=50_000 * sum(values) * 2 * PASSES / ceiling['bytes_per_second'])


def step(at):
    "Masked steps of ResNet-20 at width 1, batch 128: times of the plain loop over ours"
    images, k = random_images(at.batch * at.steps).to(at.device), at.steps
    x, y = next(iter(Batches(images, at.batch)))
    with ExitStack() as keep:
        one = {'plain': plain_step(at.width, x, y), 'fit': our_step(at.width, x, y, False, False)}
        sides = {name: lambda f=f: [f() for _ in range(k)] for name, f in one.items()}
        for name, how in ('graph', {}), ('graph_bf16', FAST):
            many = replays(at, 1, images, keep, **how)
            sides[name] = lambda f=many: f(k)
        took = rounds(sides, at.n, at.seconds)
    return dict(batch=at.batch, over_plain={name: spread([r['plain'] / r[name] for r in took]) for name in sides if name != 'plain'},
                milliseconds={name: spread([1000 * r[name] / k for r in took]) for name in sides})


def many(at):
    "One after another over in one graph: times of n networks alone over their time together"
    images, k = random_images(at.batch * at.steps).to(at.device), at.steps
    out = {}
    for name, how in ('float32', {}), ('bf16', FAST):
        with ExitStack() as keep:
            sides = {n: (lambda f=replays(at, n, images, keep, **how): f(k)) for n in at.together}
            took = rounds(sides, at.n, at.seconds)
        out[name] = {str(n): spread([n * r[1] / r[n] for r in took]) for n in at.together}
    return out


def epoch(at, ceiling):
    "Seconds for an epoch of 50,000 augmented images, as `fit_graph` takes them, and the share that the floor has in them"
    out, images = {}, random_images(256 if at.cpu else 50_000).to(at.device)
    for label, width in at.widths.items():
        model, floor = ResNet20(width).to(at.device), floors(width, at, ceiling)
        for name, how in ('float32', {}), ('bf16', FAST):
            ends = []
            config = TrainConfig(at.n + 2, .02, augment=True, batch_size=at.batch, **how)
            fit_graph(model, [init_state(model, 0)], images, config, masks=[masks_of(model)], seeds=[0], capture=at.capture, epoch_hooks=[lambda c: ends.append(time.perf_counter())])
            took = spread([b - a for a, b in zip(ends[1:], ends[2:])])
            out[f'width {label}, {name}'] = dict(seconds=took, share_of_floor=round(max(floor.values()) / took['median'], 4))
        out[f'width {label}, {name}'] |= dict(floor={k: float(f'{v:.3g}') for k, v in floor.items()})
    return out


def accuracy(at, path, seeds=8, epochs=15):
    "Test accuracies in float32 and bfloat16, of the same starts in the same order"
    data = digits(derived_seed(0, 'split')) if path is None else image_folder(path, progress=False)
    data = data.to(at.device)
    width, seeds = at.width if path else at.width / 2, range(seeds)
    model = ResNet20(width, channels=data.train_x.shape[1]).to(at.device)
    states, found = [init_state(model, s) for s in seeds], {}
    for name, how in ('float32', dict(channels_last=True)), ('bf16', FAST):
        config = TrainConfig(epochs, .08, augment=path is not None, batch_size=64 if path is None else BATCH, **how)
        found[name] = [evaluate(model, data, state=run.state)[1] for run in fit_graph(model, states, data, config, seeds=seeds, capture=at.capture)]
    differences = [100 * (b - a) for a, b in zip(found['float32'], found['bf16'])]
    return dict(device=report_name(at), width=width, seeds=len(seeds), images='digits, 8x8' if path is None else f'{Path(path).name}, {len(data.train_x):,} images', epochs=epochs, accuracy=found, points=differences, mean=statistics.mean(differences),
                standard_error=statistics.stdev(differences) / len(differences)**.5, sign_flip_p=float(sign_flip_test(differences)))


def targets(r):
    "What was asked for, and what was found"
    rows = [('graph over the plain loop, width 1, batch 128', 'at least 5', r['step']['over_plain']['graph']['median'], lambda v: v >= 5),
            ('seconds of an epoch of 50,000, width 1', 'at most 0.35', min(v['seconds']['median'] for k, v in r['epoch'].items() if k.startswith('width 1,')), lambda v: v <= .35),
            ('seconds of an epoch of 50,000, width 4', 'at most 1.0', min(v['seconds']['median'] for k, v in r['epoch'].items() if k.startswith('width 4,')), lambda v: v <= 1),
            ('four networks in one graph over one after another', 'at least 2', max(v['4']['median'] for v in r['many'].values()), lambda v: v >= 2),
            ('points of accuracy that bf16 changes, over its standard error', 'within 2', abs(r['accuracy']['mean']) / max(r['accuracy']['standard_error'], 1e-9), lambda v: v <= 2)]
    return [dict(what=what, asked=asked, found=round(v, 3), met=met(v)) for what, asked, v, met in rows]


def settings(cpu):
    if cpu: return argparse.Namespace(cpu=True, device='cpu', capture=recorded, seconds=host_seconds, n=1, steps=2, batch=32, width=1/4, widths={1: 1/4, 4: 1/4}, together=(1, 4), short=dict(seeds=2, epochs=1))
    return argparse.Namespace(cpu=False, device='cuda', capture=cuda_graph, seconds=gpu_seconds, n=7, steps=64, batch=BATCH, width=1, widths={1: 1, 4: 4}, together=(1, 2, 4, 8, 16), short={})


def report_name(at): return 'cpu' if at.cpu else torch.cuda.get_device_name()


def without_gpu(path):
    "What can be told without one"
    torch.set_num_threads(1)
    at = settings(True)
    at.width, at.capture = 1, None
    found = accuracy(at, path)
    out = Path(__file__).resolve().parents[1]/'results'/'benchmarks'/'bf16.json'
    out.write_text(json.dumps(dict(what='ResNet-20 in bfloat16 and float32 by `fit`, same starts, same order', torch=torch.__version__, **found), indent=1) + '\n')
    print('benchmarks/gpu.py: this PyTorch sees no CUDA device, so no speed was measured (--cpu tries that without); accuracies in bfloat16:', found)


def measure(at, path, out):
    "All parts, written as they come"
    report = json.loads(out.read_text()) if out.exists() else {}
    if report.get('device') != report_name(at): report = dict(what=measure_what, device=report_name(at), torch=torch.__version__, cuda=torch.version.cuda, cudnn=torch.backends.cudnn.version(), settings=cuda_settings())
    for name, part in [('ceilings', lambda: ceilings(at)), ('step', lambda: step(at)), ('many', lambda: many(at)), ('epoch', lambda: epoch(at, report['ceilings'])),
                       ('accuracy', lambda: accuracy(at, path, **at.short))]:
        if name in report: continue
        begin = time.perf_counter()
        report[name] = part()
        out.write_text(json.dumps(report, indent=1) + '\n')
        print(f'{name} ({time.perf_counter() - begin:.0f} s):', json.dumps(report[name]), flush=True)
    return report


measure_what = ('ResNet-20, sparsity 0.9, batch 128, random images 3x32x32 with crops and flips; in turn, CUDA events; the settings of the console, TF32 as PyTorch sets it; '
                'the plain loop prunes with torch.nn.utils.prune, has its batch ready, and fetches the loss in every step')

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data')
    parser.add_argument('--out', type=Path, default=Path(__file__).resolve().parents[1]/'results'/'benchmarks'/'gpu.json')
    parser.add_argument('--again', action='store_true', help='measure what is there already, too')
    parser.add_argument('--cpu', action='store_true', help='try it on the CPU, and write nothing')
    parser.add_argument('--quick', action='store_true', help='the same as --cpu, as for the other benchmarks')
    a = parser.parse_args()
    cpu = a.cpu or a.quick
    if not cpu and not torch.cuda.is_available(): without_gpu(a.data); raise SystemExit
    with tempfile.TemporaryDirectory() as folder, console_cuda():
        out = Path(folder)/'gpu.json' if cpu else a.out
        if a.again: out.unlink(missing_ok=True)
        report = measure(settings(cpu), a.data, out)
        report['targets'] = targets(report)
        out.write_text(json.dumps(report, indent=1) + '\n')
    for row in report['targets']: print(row)
