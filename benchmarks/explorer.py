"""A move in the toy's explorer: the landscape kept and the run drawn anew, against drawing everything anew.

    python benchmarks/explorer.py [--quick]

One slider of the widget moves to and fro, one thread. Both sides are measured in turn within one run; the ratio is that of the times of one pair, and its
median and spread, with the share of moves that took less than the 150 ms in which a hand feels no delay, are written to results/benchmarks/explorer.json.
"""
import json, statistics, sys, time
from pathlib import Path

import matplotlib, torch

from sparse_lth.core import use_style
from sparse_lth.toy import TwoNeurons, _drawing, explore

LIMIT = .15


def seconds(f, *args):
    start = time.perf_counter()
    f(*args)
    return time.perf_counter() - start


def measure(kind, moves):
    "Pairs of times: everything anew, and a move of the widget"
    toy, widget = TwoNeurons(), explore()
    buttons, sliders = widget.children[0].children[0], widget.children[0].children[1:5]
    buttons.value = kind
    own = sliders[0 if kind in ('dense', 'lth') else 2]                # a start that is drawn
    pairs = []
    for i in range(moves + 2):
        value = own.value + (.1 if i % 2 else -.1)
        a0, a1, b0, b1 = (value if s is own else s.value for s in sliders)
        anew = seconds(lambda: _drawing(toy, (-2.2, 2.4), 300)((a0, a1), (b0, b1), .02, kind))
        pairs.append((anew, seconds(setattr, own, 'value', value)))
    pairs = pairs[2:]                                                   # the first ones warm up
    ratios = [anew / move for anew, move in pairs]
    return dict(path=kind, moves=moves, anew_over_move=dict(median=round(statistics.median(ratios), 2), low=round(min(ratios), 2), high=round(max(ratios), 2)),
                share_below_150_ms=sum(move < LIMIT for _, move in pairs) / moves)


if __name__ == '__main__':
    matplotlib.use('Agg')
    torch.set_num_threads(1)
    use_style()
    rows = [measure(kind, 5 if '--quick' in sys.argv else 50) for kind in ('dense', 'lth', 'naive', 'permuted')]
    for r in rows:
        print('{path}: drawing everything anew takes {0[median]} [{0[low]}..{0[high]}] times a move; {1:.0%} of {moves} moves took less than 150 ms'.format(r['anew_over_move'], r['share_below_150_ms'], **r))
    if '--quick' not in sys.argv:
        out = Path(__file__).resolve().parents[1]/'results'/'benchmarks'
        out.mkdir(parents=True, exist_ok=True)
        (out/'explorer.json').write_text(json.dumps(dict(what='a move of the explorer, the landscape kept, against drawing everything anew; one thread', matplotlib=matplotlib.__version__, rows=rows), indent=1) + '\n')
