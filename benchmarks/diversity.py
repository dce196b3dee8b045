"""KL and JS of ten networks against scipy pair by pair, on one thread.

    python benchmarks/diversity.py [--quick]

Random logits of 10 networks, 10,000 images and 100 classes (--quick: 1,000 images). The plain side goes through the pairs with scipy's log-softmax and jensenshannon, in float64, as one would
write first. Both sides in turn within one run; a ratio is that of the times of one turn. The JSON also says whether disagreement, KL and JS together, with their checks, took less than three seconds.
Results go to results/benchmarks/diversity.json.
"""
import itertools, json, statistics, sys, time
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.distance import jensenshannon
from scipy.special import log_softmax

from sparse_lth.diversity import disagreement, js, kl


def plain_kl(logits):
    log_p = log_softmax(logits, -1)
    return np.mean([(np.exp(a) * (a - b)).sum(-1).mean() for a, b in itertools.permutations(log_p, 2)])


def plain_js(logits):
    p = np.exp(log_softmax(logits, -1))
    return np.mean([(jensenshannon(a, b, axis=-1)**2).mean() for a, b in itertools.combinations(p, 2)])


def timed(f, *args):
    start = time.perf_counter()
    value = f(*args)
    return value, time.perf_counter() - start


if __name__ == '__main__':
    quick = '--quick' in sys.argv
    torch.set_num_threads(1)
    logits, turns = torch.randn(10, 1_000 if quick else 10_000, 100, generator=torch.Generator().manual_seed(0)) * 3, 3 if quick else 5
    ratios, whole = {'kl': [], 'js': []}, []
    for _ in range(turns):
        for name, ours, plain in ('kl', kl, plain_kl), ('js', js, plain_js):
            (a, fast), (b, slow) = timed(ours, logits), timed(plain, logits.double().numpy())
            assert abs(a - b) < 1e-9 * b, f'{name}: {a} and {b}'
            ratios[name].append(slow / fast)
        whole.append(sum(timed(f, logits)[1] for f in (disagreement, kl, js)))
    spread = lambda v: dict(median=round(statistics.median(v), 2), low=round(min(v), 2), high=round(max(v), 2))
    result = dict(what='scipy pair by pair over sparse_lth, seconds; random logits, one thread, float64, interleaved', torch=torch.__version__, shape=list(logits.shape), turns=turns,
                  within_3_s=max(whole) < 3, **{f'{name}_over_plain': spread(v) for name, v in ratios.items()})
    print(json.dumps(result, indent=1))
    if not quick: (Path(__file__).parents[1]/'results/benchmarks/diversity.json').write_text(json.dumps(result, indent=1) + '\n')
