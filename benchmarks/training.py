"""Real images and masked training against a plain PyTorch loop: how much faster, and with how little.

    python benchmarks/training.py [--quick]

The plain side is what one would write first: PIL images through torchvision's transforms in a DataLoader, masks by torch.nn.utils.prune, torch.optim.SGD, and the loss fetched in
every step. Both sides run in turn within one run on one thread; a ratio is that of the times of one turn (of CPU times
for training steps), and its median and spread over the turns are written to results/benchmarks/training.json.

What makes a masked step faster on a CPU is the memory layout and bfloat16, and nothing else: in float32 with one
layout, the plain loop, the same without masks and a step of `fit` take the same time (at batch 64 as at 128), since
convolutions are nearly all of it; the plain loop with channels last is as fast as `fit` with channels last. What
`fit` saves in operations and in waiting for the loss shows where operations are small or launched on a GPU.

Images are random bytes of CIFAR's size, since their content costs no time; nothing is decoded on either side.
"""
import json, statistics, sys, tempfile, time
from collections import Counter
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch.nn.utils import prune
from torch.utils._python_dispatch import TorchDispatchMode

from sparse_lth.core import import_torchvision
from sparse_lth.data import Batches, Data, image_folder
from sparse_lth.models import ResNet20, init_state, prunable
from sparse_lth.pruning import magnitude_masks
from sparse_lth.training import keep_masked, _layout, _one_step

SPARSITY, BATCH = .9, 128
transforms = import_torchvision().transforms


def random_images(n):
    "So many images of CIFAR's size"
    g = torch.Generator().manual_seed(0)
    x, y = torch.randint(256, (n, 3, 32, 32), generator=g, dtype=torch.uint8), torch.randint(10, (n,), generator=g)
    return Data(x, y, x[:10], y[:10], 10, (.49, .48, .45), (.25, .24, .26))


class Pictures(torch.utils.data.Dataset):
    "As torchvision's CIFAR10: an array in memory, each image a PIL image and then transformed"
    def __init__(self, data):
        self.x, self.y = data.train_x.permute(0, 2, 3, 1).contiguous().numpy(), data.train_y.tolist()
        self.transform = transforms.Compose([transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize(data.mean, data.std)])
    def __len__(self): return len(self.x)
    def __getitem__(self, i): return self.transform(Image.fromarray(self.x[i])), self.y[i]


def seconds(f):
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def cpu_seconds(f):
    start = time.process_time()
    f()
    return time.process_time() - start


def turns(sides, n, seconds=seconds):
    "The times of all sides, turn by turn, over those of the first"
    for f in sides.values(): f()
    runs = [{name: seconds(f) for name, f in sides.items()} for _ in range(n)]
    plain, *others = sides
    ratios = {name: [r[plain] / r[name] for r in runs] for name in others}
    return {name: dict(median=round(statistics.median(x), 2), low=round(min(x), 2), high=round(max(x), 2)) for name, x in ratios.items()}


def through(batches):
    for _ in batches: pass


def pipeline(images, n):
    "Augmented, standardized batches of 128"
    data = random_images(images)
    loader = torch.utils.data.DataLoader(Pictures(data), BATCH, shuffle=True, drop_last=True)
    ours = {name: Batches(data, BATCH, shuffle=True, augment=True, seed=0, channels_last=name == 'channels_last') for name in ('contiguous', 'channels_last')}
    return turns({'plain': lambda: through(loader)} | {name: lambda b=b: through(b) for name, b in ours.items()}, n)


def decoding(images, n):
    "A folder of JPEG files: decoding it over loading it again"
    data = random_images(images)
    with tempfile.TemporaryDirectory() as folder:
        for i, (x, y) in enumerate(zip(data.train_x, data.train_y.tolist())):
            path = Path(folder)/'images'/('test' if i % 6 == 0 else 'train')/str(y)/f'{i}.jpg'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(x.permute(1, 2, 0).numpy()).save(path, quality=75)
        load = lambda cache: image_folder(Path(folder)/'images', cache=cache, progress=False)
        return turns({'plain': lambda: load(False), 'again': lambda: load(f'{folder}/cache')}, n)['again']


def modules(model): return dict(model.named_modules())


def plain_step(width, x, y, channels_last=False, masked=True):
    "A step of the plain loop"
    model = ResNet20(width).to(x.device)
    model.load_state_dict(init_state(model, 0))
    if channels_last:
        model, x = (t.to(memory_format=torch.channels_last) for t in (model, x))
    for name, mask in masks_of(model).items() if masked else ():
        prune.custom_from_mask(modules(model)[name.removesuffix('.weight')], 'weight', mask)
    optimizer = torch.optim.SGD(model.parameters(), lr=.02, momentum=.9, weight_decay=5e-4)
    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()
    return step


def our_step(width, x, y, channels_last, bf16):
    "A step of `fit`"
    model = ResNet20(width).to(x.device)
    model.load_state_dict(init_state(model, 0))
    if channels_last: model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=.02, momentum=.9, weight_decay=5e-4, foreach=True)
    keep_masked(optimizer, model, masks_of(model), gradients=False)
    return lambda: _one_step(model, optimizer, x, y, bf16)


def masks_of(model): return magnitude_masks(model.state_dict(), prunable(model), SPARSITY)


def step_times(width, batch, steps, n):
    "Masked steps of ResNet-20, a few in each turn"
    x, y = next(iter(Batches(random_images(batch), batch)))
    sides = {'plain': plain_step(width, x, y), 'plain_without_masks': plain_step(width, x, y, masked=False),
             'plain_channels_last': plain_step(width, x, y, channels_last=True),
             'fp32': our_step(width, x, y, False, False), 'fp32_channels_last': our_step(width, x, y, True, False),
             'bf16_channels_last': our_step(width, x, y, True, True)}
    def several(step):
        def run():
            for _ in range(steps): step()
        return run
    return turns({name: several(step) for name, step in sides.items()}, n, cpu_seconds)


class Counting(TorchDispatchMode):
    "Counts operations that make something new, and those for which a GPU would have to be waited for"
    SYNC = {'_local_scalar_dense', 'equal', 'is_nonzero', 'nonzero', 'masked_select'}
    def __init__(self): super().__init__(); self.ops, self.syncs = Counter(), 0
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if not func.is_view: self.ops[name] += 1
        self.syncs += name in self.SYNC
        return func(*args, **kwargs or {})


def counts():
    "Operations and waits of one step"
    x, y = next(iter(Batches(random_images(8), 8)))
    out = {}
    for name, step in ('plain', plain_step(1, x, y)), ('fit', our_step(1, x, y, False, False)):
        step()                                                                    # the first step makes the momentum
        with Counting() as c: step()
        out[name] = dict(operations=c.ops.total(), waits=c.syncs)
    return out


if __name__ == '__main__':
    torch.set_num_threads(1)
    quick = '--quick' in sys.argv
    n = 1 if quick else 5
    report = dict(pipeline=pipeline(512 if quick else 8192, n))
    print('batches, times the plain pipeline:', report['pipeline'], flush=True)
    report['decoding'] = decoding(200 if quick else 10_000, n)
    print('loading again, times decoding:', report['decoding'], flush=True)
    report['step'] = {str(w): step_times(w, 16 if quick else BATCH, steps, n) for w, steps in (((1, 1),) if quick else ((1, 4), (4, 1)))}
    print('masked steps, times the plain step:', report['step'], flush=True)
    report['counts'] = counts()
    print('one step:', report['counts'], flush=True)
    if not quick:
        out = Path(__file__).resolve().parents[1]/'results'/'benchmarks'/'training.json'
        about = ('one thread, in turn: times (of training steps: CPU times) of a plain PyTorch loop '
                 '(PIL, DataLoader, torch.nn.utils.prune) over ours; '
                 'ResNet-20, batch 128, sparsity 0.9; batches of 128 images 3x32x32')
        out.write_text(json.dumps(dict(what=about, torch=torch.__version__, **report), indent=1) + '\n')
