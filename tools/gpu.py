"""Run the notebooks that have cells for a GPU, those cells included, with plain Python: no Jupyter and no nbdev, only what the library itself needs.

    python tools/gpu.py                              # every notebook with a cuda cell; ends with 'N passed, N failed'
    python tools/gpu.py nbs/04_training.ipynb        # this one
    python tools/gpu.py --cpu                        # try it without a GPU: the cuda cells are run, and find none

On a GPU each notebook is run twice, with PyTorch's settings as they come and with those of the console `sparse-lth`.
"""
import contextlib, json, re, sys, time, traceback, types
from pathlib import Path

import matplotlib
import torch

ROOT = Path(__file__).resolve().parents[1]


def close(a, b, eps=1e-5):
    "Like fastcore's: numbers, arrays, and what holds them"
    if hasattr(a, '__array__') or hasattr(b, '__array__'): return bool((abs(torch.as_tensor(a, dtype=torch.float64, device='cpu') - torch.as_tensor(b, dtype=torch.float64, device='cpu')) < eps).all())
    if hasattr(a, '__iter__'): return len(a) == len(b) and all(close(x, y, eps) for x, y in zip(a, b))
    return abs(a - b) < eps


def equal(a, b):
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor): return torch.equal(torch.as_tensor(a), torch.as_tensor(b))
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)): return len(a) == len(b) and all(map(equal, a, b))
    return a == b


@contextlib.contextmanager
def exception_expected(kind=Exception, regex=''):
    try: yield
    except kind as e: assert re.search(regex, str(e)), f'expected {regex!r} in {e}'
    else: raise AssertionError(f'expected a {kind.__name__}')


def stand_in():
    "What notebooks use of fastcore.test, for where it is not installed"
    def check(test):
        def checked(a, b, *args, **named): assert test(a, b, *args, **named), f'{a}\n{b}'
        return checked
    module = types.ModuleType('fastcore.test')
    module.test_eq, module.test_ne, module.test_close, module.ExceptionExpected = check(equal), check(lambda a, b: not equal(a, b)), check(close), exception_expected
    sys.modules |= {'fastcore': types.ModuleType('fastcore'), 'fastcore.test': module}


def code_cells(path): return [''.join(c['source']) for c in json.loads(path.read_text())['cells'] if c['cell_type'] == 'code']


def run(path):
    "All cells of a notebook in one namespace, from its own folder"
    space = {'__name__': '__main__'}
    with contextlib.chdir(path.parent):
        for i, code in enumerate(code_cells(path)):
            if 'nbdev_export' in code or 'default_exp' in code: continue
            exec(compile(code, f'{path.name}, cell {i}', 'exec'), space)


if __name__ == '__main__':
    cpu, names = '--cpu' in sys.argv, [a for a in sys.argv[1:] if not a.startswith('-')]
    if not torch.cuda.is_available() and not cpu: sys.exit('tools/gpu.py: this PyTorch sees no CUDA device; --cpu tries it without')
    sys.path.insert(0, str(ROOT))
    matplotlib.use('Agg')
    try: import fastcore.test
    except ImportError: stand_in()
    if cpu: stand_in()                                                            # so that it is tried too
    paths = [Path(n).resolve() for n in names] or [p for p in sorted((ROOT/'nbs').rglob('*.ipynb')) if any(re.match(r'#\|\s*cuda\b', c) for c in code_cells(p))]
    from sparse_lth.cuda import console_cuda
    settings = {'as PyTorch comes': contextlib.nullcontext, 'as the console sets it': console_cuda}
    if cpu: del settings['as PyTorch comes']                                      # that is how every other test runs
    failed = 0
    for path in paths:
        for name, setting in settings.items():
            start = time.time()
            try:
                with setting(): run(path)
            except Exception:
                failed += 1
                traceback.print_exc()
            print(f'{path.name}, {name}: {time.time() - start:.0f} s', flush=True)
    print(f'{len(paths) * len(settings) - failed} passed, {failed} failed', flush=True)
    sys.exit(failed > 0)
