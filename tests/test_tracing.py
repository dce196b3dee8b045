"One operation at a time, as people write them: every traced spec is a symmetry, with the groups that are there."
import copy

import pytest, torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from sparse_lth.symmetry import UnsupportedOp, check_spec, permute, random_perms, trace_spec, _randomised

L, C = nn.Linear, lambda i=3, o=6, **options: nn.Conv2d(i, o, 3, padding=1, **options)
P = lambda *shape: nn.Parameter(torch.ones(shape))
VECTORS, TOKENS, IMAGES, WORDS = (2, 4), (2, 7, 4), (2, 3, 6, 6), None


class Net(nn.Module):
    def __init__(self, run, **parts):
        super().__init__()
        self.run = run
        for name, part in parts.items(): setattr(self, name, part)
    def forward(self, x): return self.run(self, x)


def in_place(m, x):
    y = m.a(x)
    y += m.b(y)
    y *= 2
    return m.h(y.relu_().mean((2, 3)))


def case(name, groups, shape, run, **parts): return pytest.param(groups, shape, run, parts, id=name)
mlp, conv = dict(a=L(4, 5), h=L(5, 2)), dict(a=C(), h=L(6, 2))
two, streams = dict(a=L(4, 5), b=L(4, 5), h=L(5, 2)), dict(a=C(), b=C(6, 6), h=L(6, 2))


@pytest.mark.parametrize('groups, shape, run, parts', [
    case('keywords', [5], VECTORS, lambda m, x: F.linear(input=m.a(x).relu(), weight=m.w, bias=m.b), a=L(4, 5), w=P(3, 5), b=P(3)),
    case('depthwise, functional', [6], IMAGES, lambda m, x: m.h(F.conv2d(m.a(x).relu(), weight=m.w, padding=1, groups=6).mean(dim=[-1, -2])), w=P(6, 1, 3, 3), **conv),
    case('depthwise, transposed', [6], IMAGES, lambda m, x: m.h(m.d(m.a(x)).mean((2, 3))), a=C(), d=nn.ConvTranspose2d(6, 12, 2, groups=6), h=L(12, 2)),
    case('batch norm, functional', [6], IMAGES, lambda m, x: m.h(F.batch_norm(m.a(x), running_mean=m.n.running_mean, running_var=m.n.running_var, bias=m.n.bias).mean((2, 3))), n=nn.BatchNorm2d(6), **conv),
    case('batch norm without vectors', [6], IMAGES, lambda m, x: m.h(m.n(m.a(x)).relu().mean((2, 3))), n=nn.BatchNorm2d(6, affine=False, track_running_stats=False), **conv),
    case('layer norm, functional', [5], VECTORS, lambda m, x: m.h(F.layer_norm(m.a(x), (5,), m.w, bias=m.b)), w=P(5), b=P(5), **mlp),
    case('layer norm, two axes', [5], TOKENS, lambda m, x: m.h(m.n(m.a(x)).relu().mean(1)), n=nn.LayerNorm((7, 5)), **mlp),
    case('RMS norm', [5], VECTORS, lambda m, x: m.h(m.n(m.a(x))), n=nn.RMSNorm(5), **mlp),
    case('in place', [6], IMAGES, in_place, **streams),
    case('one image', [6], (1, 3, 6, 6), lambda m, x: m.h(m.a(x).relu().mean((2, 3))), **conv),
    case('no batch', [6], (3, 6, 6), lambda m, x: m.h(m.a(x).relu().mean((1, 2))), **conv),
    case('as many images as channels', [6], (6, 3, 6, 6), lambda m, x: m.h(m.a(x).relu().view(x.size(0), -1)), a=C(), h=L(216, 2)),
    case('three axes of positions', [6], (2, 2, 5, 5, 5), lambda m, x: m.h(F.adaptive_avg_pool3d(m.a(x).relu(), 1).flatten(1)), a=nn.Conv3d(2, 6, 3), h=L(6, 2)),
    case('circular padding', [6], IMAGES, lambda m, x: m.h(m.a(x).relu().mean((2, 3))), a=C(padding_mode='circular'), h=L(6, 2)),
    case('standardized weights', [6], IMAGES, lambda m, x: m.h(F.conv2d(x, m.w - m.w.mean((1, 2, 3), keepdim=True)).relu().mean((2, 3))), w=P(6, 3, 3, 3), h=L(6, 2)),
    case('products of vectors', [5], VECTORS, lambda m, x: m.a(x).relu() @ m.v, a=L(4, 5), v=P(5)),
    case('attention by hand, one head', [5, 6], TOKENS, lambda m, x: m.h((m.q(x) @ m.k(x).transpose(-2, -1)).softmax(-1) @ m.v(x)).sum(1), q=L(4, 5), k=L(4, 5), v=L(4, 6), h=L(6, 2)),
    case('standardized units', [5], VECTORS, lambda m, x: m.h((m.a(x) - m.a(x).mean(1, keepdim=True)) / m.a(x).std(dim=1, keepdim=True) / m.a(x).norm(dim=1, keepdim=True)), **mlp),
    case('normalized units', [5], VECTORS, lambda m, x: m.h(F.normalize(m.a(x), dim=1)), **mlp),
    case('where', [5], VECTORS, lambda m, x: m.h(torch.where(m.a(x) > 0, m.a(x), m.b(x).masked_fill(m.b(x) < 0, 0.))), **two),
    case('stack', [5], VECTORS, lambda m, x: m.h(torch.stack([m.a(x), m.b(x)], 1).amax(1)), **two),
    case('stack and flatten', [5], VECTORS, lambda m, x: m.h(torch.stack([m.a(x), m.b(x)], -1).flatten(1)), a=L(4, 5), b=L(4, 5), h=L(10, 2)),
    case('strides', [6], IMAGES, lambda m, x: m.h(m.a(x).relu()[:, :, ::2, 1:][..., -1].mean(-1)), **conv),
    case('parts of positions', [6], IMAGES, lambda m, x: m.h(m.a(x).split(3, dim=2)[0].mean((2, 3)) + m.a(x).chunk(2, -1)[1].mean((2, 3))), **conv),
    case('positions flipped and rolled', [6], IMAGES, lambda m, x: m.h(m.a(x).relu().flip(2, 3).roll((1, 1), (2, 3)).amax((2, 3))), **conv),
    case('largest position', [6], IMAGES, lambda m, x: m.h(m.a(x).flatten(2).max(-1)[0] + m.a(x).flatten(2).topk(3).values.mean(-1)), **conv),
    case('expand', [6], IMAGES, lambda m, x: m.h((m.a(x) * m.g(x).expand(-1, 6, -1, -1)).mean((2, 3))), g=C(3, 1), **conv),
    case('padding and resizing', [6], IMAGES, lambda m, x: m.h(F.interpolate(F.pad(m.a(x), (1, 1)), scale_factor=2, mode='bilinear').mean((2, 3))), **conv),
    case('up and down', [4, 6, 8], IMAGES, lambda m, x: m.h(torch.cat([m.a(x), m.u(m.d(m.a(x)).relu())], 1).relu().mean((2, 3))), a=C(), d=nn.Conv2d(6, 8, 2, 2), u=nn.ConvTranspose2d(8, 4, 2, 2), h=L(10, 2)),
    case('mixer', [5, 9], TOKENS, lambda m, x: m.h((m.a(x) + m.t2(m.t1(m.a(x).transpose(1, 2)).relu()).transpose(1, 2)).mean(1)), t1=L(7, 9), t2=L(9, 7), **mlp),
    case('experts', [5, 6], VECTORS, lambda m, x: (torch.stack([m.e(x), m.f(x)], -1) * m.g(x).softmax(-1).unsqueeze(1)).sum(-1), g=L(4, 2), e=nn.Sequential(L(4, 5), nn.ReLU(), L(5, 3)), f=nn.Sequential(L(4, 6), nn.ReLU(), L(6, 3))),
    case('several outputs', [5], VECTORS, lambda m, x: {'one': m.h(m.a(x).relu()), 'more': [m.k(m.a(x).tanh())]}, k=L(5, 3), **mlp),
    case('pooled over neighbouring units', [], VECTORS, lambda m, x: m.h(F.avg_pool1d(m.a(x).unsqueeze(1), 2).flatten(1)), a=L(4, 6), h=L(3, 2)),
    case('a constant per unit', [], VECTORS, lambda m, x: m.h(m.a(x) * torch.arange(5.)), **mlp),
])
def test_traced_groups(groups, shape, run, parts):
    model, x = Net(run, **copy.deepcopy(parts)).eval(), torch.randn(shape, generator=torch.Generator().manual_seed(0))
    spec = trace_spec(model, x)
    assert sorted(spec.sizes.values()) == groups
    check_spec(spec, model, x)
    model, x, state = model.double(), x.double(), _randomised(model, 0)
    flat = lambda out: out.flatten() if isinstance(out, torch.Tensor) else torch.cat([flat(o) for o in (out.values() if isinstance(out, dict) else out)])
    own = {n for n, _ in (*model.named_parameters(), *model.named_buffers())}
    f = lambda state: flat(functional_call(model, {n: w for n, w in state.items() if n in own}, (x,)))
    assert (f(permute(spec, random_perms(spec, 1), state)) - f(state)).abs().max() <= 1e-9 * f(state).abs().max()


@pytest.mark.parametrize('run', [
    lambda m, x: m.h(m.a(x).flip(1)), lambda m, x: m.h(torch.roll(m.a(x), shifts=1, dims=1)), lambda m, x: m.h(torch.roll(m.a(x), 1)), lambda m, x: m.h(m.a(x).cumsum(dim=-1)),
    lambda m, x: m.h(m.a(x)[:, torch.tensor([1, 0, 2, 3, 4])]), lambda m, x: m.h(m.a(x).repeat(1, 1)), lambda m, x: m.h(F.pad(m.a(x), (0, 1))[:, :5]), lambda m, x: F.linear(m.a(x)[:, :3], m.h.weight[:, :3]),
    lambda m, x: m.h(m.a(x).sort(dim=1)[0]), lambda m, x: m.h(m.a(x).clone().fill_diagonal_(0)), lambda m, x: m.h(m.a(x)) * m.a(x).argmax(1, keepdim=True), lambda m, x: m.h(m.a(x)) * m.a(x).sum().item()])
def test_what_takes_units_by_number_is_refused(run):
    with pytest.raises(UnsupportedOp, match='write a PermSpec by hand'): trace_spec(Net(run, a=L(4, 5), h=L(5, 2)), torch.ones(2, 4))
