"""Many small networks at once: `fit_many` against a plain PyTorch loop, and against a loop of `fit`.

    python benchmarks/stacked.py [--quick]

Twenty masked MLPs 64-w-w-10 are trained on the digits for a few epochs, batch 64, one thread. Both sides are measured in turn within one run;
a ratio is that of the models per second of one pair, and its median and spread over the pairs are written to results/benchmarks/stacked.json.
"""
import json, statistics, sys, time
from pathlib import Path

import torch
import torch.nn.functional as F

from sparse_lth.data import Batches, digits
from sparse_lth.models import MLP, init_state, prunable
from sparse_lth.training import TrainConfig, fit, fit_many

NETS = 20


def plain_loop(width, states, masks, data, config):
    "What one would write: a module, an optimizer, a loop; the mask multiplied after each step"
    for seed, (state, mask) in enumerate(zip(states, masks)):
        model = MLP(64, width, width, 10)
        model.load_state_dict(state)
        optimizer = torch.optim.SGD(model.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
        steps = config.epochs * (len(data.train_x) // config.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        weights = dict(model.named_parameters())
        pairs = [(weights[n], m.float()) for n, m in mask.items()]
        with torch.no_grad():
            for w, m in pairs: w.mul_(m)
        batches = Batches(data, config.batch_size, shuffle=True, seed=seed)
        for epoch in range(config.epochs):
            for x, y in batches.epoch(epoch):
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
                schedule.step()
                with torch.no_grad():
                    for w, m in pairs: w.mul_(m)


def fit_loop(width, states, masks, data, config):
    "One `fit` after another"
    for seed, (state, mask) in enumerate(zip(states, masks)):
        model = MLP(64, width, width, 10)
        model.load_state_dict(state)
        fit(model, data, config, masks=mask, seed=seed)


def stacked(width, states, masks, data, config):
    fit_many(MLP(64, width, width, 10), states, data, config, masks=masks, seeds=range(len(states)))


def seconds(f, *args):
    start = time.perf_counter()
    f(*args)
    return time.perf_counter() - start


def measure(width, repeats, config, data):
    "Ratios of models per second, pair by pair"
    model = MLP(64, width, width, 10)
    states = [init_state(model, s) for s in range(NETS)]
    g = torch.Generator().manual_seed(0)
    masks = [{n: torch.rand(s[n].shape, generator=g) < .1 for n in prunable(model)} for s in states]
    args = width, states, masks, data, config
    for f in plain_loop, fit_loop, stacked: f(width, states[:8], masks[:8], data, TrainConfig(1, config.lr, batch_size=config.batch_size))
    pairs = [(seconds(plain_loop, *args), seconds(fit_loop, *args), seconds(stacked, *args)) for _ in range(repeats)]
    report = lambda x: dict(median=round(statistics.median(x), 2), low=round(min(x), 2), high=round(max(x), 2))
    return dict(width=width, nets=NETS, pairs=repeats, over_plain_loop=report([p / s for p, _, s in pairs]), over_fit_loop=report([f / s for _, f, s in pairs]))


if __name__ == '__main__':
    torch.set_num_threads(1)
    quick = '--quick' in sys.argv
    rows = []
    for width in 32, 64, 128:
        rows.append(measure(width, 2 if quick else 7, TrainConfig(epochs=1 if quick else 3, lr=.05, batch_size=64), digits(0)))
        r = rows[-1]
        print('width {width}, {nets} nets: fit_many is {0[median]} [{0[low]}..{0[high]}] times a plain loop, {1[median]} [{1[low]}..{1[high]}] times a loop of fit'.format(r['over_plain_loop'], r['over_fit_loop'], **r), flush=True)
    if not quick:
        out = Path(__file__).resolve().parents[1]/'results'/'benchmarks'
        out.mkdir(parents=True, exist_ok=True)
        (out/'stacked.json').write_text(json.dumps(dict(what='models per second of fit_many over a loop, one thread, masked SGD on digits, batch 64', torch=torch.__version__, rows=rows), indent=1) + '\n')
