"Properties that hold for any shape, sparsity and permutation, tried on random ones."
import itertools

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial.distance import jensenshannon
from scipy.special import log_softmax
from torch import nn
from hypothesis import given, settings, strategies as st

from sparse_lth.connectivity import barrier, between, interpolate
from sparse_lth.core import apply_masks, import_torchvision, sparsity
from sparse_lth.diversity import disagreement, ensemble_accuracy, js, kl
from sparse_lth.models import MLP, init_state, prunable
from sparse_lth.pruning import imp_rounds, magnitude_masks
from sparse_lth.stats import holm, sign_flip_test
from sparse_lth.symmetry import check_spec, compose, identity_perms, invert, mlp_spec, permute, random_perms, trace_spec, _randomised
from sparse_lth.training import TrainConfig, fit_many
from sparse_lth.data import Data

settings.register_profile('quiet', deadline=None, derandomize=True, max_examples=40)
settings.load_profile('quiet')
sizes = st.lists(st.integers(1, 9), min_size=2, max_size=5)
seeds = st.integers(0, 2**32)


def equal(a, b): return all(torch.equal(a[k], b[k]) for k in a)


@given(sizes, seeds, st.lists(st.floats(0, .999), min_size=1, max_size=4))
def test_masks_are_exact_and_nested(sizes, seed, sparsities):
    model = MLP(*sizes)
    state, names, outer = {n: w.round(decimals=1) for n, w in init_state(model, seed).items()}, prunable(model), None      # rounded: many ties and zeros
    total = sum(state[n].numel() for n in names)
    for s in sorted(sparsities):
        if not round((1 - s) * total): break                             # none left: refused, see 05_pruning
        masks = magnitude_masks(state, names, s, outer)
        assert sum(int(m.sum()) for m in masks.values()) == round((1 - s) * total)
        assert outer is None or all((masks[n] <= outer[n]).all() for n in names)
        outer = masks


@given(sizes, seeds, seeds)
def test_permutations_are_a_group_that_acts(sizes, seed, other):
    model = MLP(*sizes)
    spec, state = mlp_spec(model), init_state(model, seed)
    p, q = random_perms(spec, seed), random_perms(spec, other)
    assert equal(permute(spec, compose(p, q), state), permute(spec, p, permute(spec, q, state)))
    assert equal(permute(spec, invert(p), permute(spec, p, state)), state)
    assert equal(compose(invert(p), p), identity_perms(spec))


@given(sizes, seeds, st.floats(0, .99))
def test_permuting_commutes_with_masking_and_keeps_the_function(sizes, seed, s):
    model = MLP(*sizes).double()
    spec, state = mlp_spec(model), init_state(model, seed)
    total = sum(w.numel() for n, w in state.items() if n in prunable(model))
    p, masks = random_perms(spec, seed), magnitude_masks(state, prunable(model), min(s, 1 - 1 / total))
    masked = apply_masks(state, masks)
    assert equal(permute(spec, p, masked), apply_masks(permute(spec, p, state), permute(spec, p, masks)))
    assert sparsity(permute(spec, p, masks)) == sparsity(masks)
    x = torch.randn(7, sizes[0], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    f = lambda s: torch.func.functional_call(model, s, x)
    assert torch.allclose(f(masked), f(permute(spec, p, masked)), atol=1e-9)
    check_spec(spec, model, x)


@given(st.lists(st.floats(0, .99), min_size=1, max_size=5, unique=True), st.floats(.05, .9))
def test_every_sparsity_is_cut_once_and_in_time(sparsities, rate):
    rounds = imp_rounds(sparsities, rate)
    assert sorted(s for _, cuts in rounds for s in cuts) == sorted(sparsities)
    for (before, _), (level, cuts) in zip([(0, []), *rounds], rounds): assert all(before <= s <= level + 1e-9 for s in cuts)


@settings(max_examples=40)
@given(st.integers(1, 7), st.integers(1, 7), seeds, st.lists(st.integers(1, 40), min_size=1, max_size=3), st.sampled_from([7, 8, 16]))
def test_no_cut_of_a_stack_changes_a_bit(chunk, other, seed, widths, batch_size):
    "Also for odd widths and batches, which `fit_many` must then not stack"
    g = torch.Generator().manual_seed(seed)
    x, y = torch.rand(40, 16, generator=g), torch.randint(4, (40,), generator=g)
    data, model = Data(x, y, x[:5], y[:5], 4, .5, .3), MLP(16, *widths, 4)
    states, config = [init_state(model, s) for s in range(7)], TrainConfig(2, .1, batch_size=batch_size)
    a, b = (fit_many(model, states, data, config, seeds=range(7), chunk=c) for c in (chunk, other))
    assert all(equal(r.state, s.state) for r, s in zip(a, b))


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=9))
def test_sign_flips_are_fair(differences):
    p = sign_flip_test(differences)
    assert 2 / 2**len(differences) - 1e-12 <= p <= 1
    assert abs(p - sign_flip_test([-d for d in differences])) < 1e-9


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_starts_with_bonferroni(p):
    adjusted = holm(p)
    by_p = [a for _, a in sorted(zip(p, adjusted))]
    assert by_p == sorted(by_p)
    assert abs(by_p[0] - min(1, len(p) * min(p))) < 1e-12
    assert all(x <= a <= 1 for x, a in zip(p, adjusted))


class Grown(nn.Module):
    "A network grown from a random plan. Each layer opens one group or none, and none is ever merged with another: `expected` has their sizes"
    def __init__(self, plan, flat):
        super().__init__()
        self.layers, self.plan, self.flat, self.expected, n = nn.ModuleList(), plan, flat, [], 3
        conv = lambda i, o, k=3, **options: nn.Conv2d(i, o, k, padding=k // 2, **options)
        for kind, width in plan:
            norm = (nn.BatchNorm2d, nn.InstanceNorm2d, lambda n: nn.GroupNorm(1, n), nn.PReLU)[width % 4]
            self.layers.append(nn.ModuleList({
                'conv': lambda: [conv(n, width, bias=width % 2 == 0)], 'transposed': lambda: [nn.ConvTranspose2d(n, width, 3, padding=1)],
                'joined': lambda: [conv(n, width)], 'residual': lambda: [conv(n, width, 1), nn.BatchNorm2d(width), conv(width, n)], 'norm': lambda: [norm(n)],
                'gate': lambda: [nn.Linear(n, width), nn.Linear(width, n)], 'depthwise': lambda: [conv(n, n * (1 + width % 2), groups=n)], 'twice': lambda: [conv(n, n)],
            }[kind]()))
            if kind not in ('norm', 'depthwise', 'twice'): self.expected.append(width)
            n = width if kind in ('conv', 'transposed') else n + width if kind == 'joined' else n * (1 + width % 2) if kind == 'depthwise' else n
        self.head = nn.Linear(n * 4 if flat else n, 4)

    def forward(self, x):
        for (kind, _), m in zip(self.plan, self.layers):
            if kind in ('conv', 'transposed'): x = m[0](x).relu()
            elif kind == 'joined': x = torch.cat([x, m[0](x)], 1)                     # the part that was there goes first
            elif kind == 'residual': x = F.gelu(x + m[2](m[1](m[0](x)).relu()))
            elif kind == 'gate': x = x * m[1](m[0](x.mean((2, 3))).tanh()).sigmoid()[:, :, None, None]
            elif kind == 'twice': x = m[0](m[0](x).tanh()).tanh()                     # what comes out goes in again
            else: x = m[0](x)
        return self.head(F.adaptive_avg_pool2d(x, 2 if self.flat else 1).flatten(1))


@given(st.integers(2, 6), st.integers(1, 8), st.integers(2, 9), st.floats(-3, 5), seeds)
def test_divergences_equal_scipy(networks, images, classes, steep, seed):
    logits = torch.randn(networks, images, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 10**steep
    log_p = log_softmax(logits.numpy(), -1)
    pairs = list(itertools.combinations(range(networks), 2))
    by_scipy = sum(jensenshannon(np.exp(log_p[i]), np.exp(log_p[j]), axis=-1)**2 for i, j in pairs).mean() / len(pairs)
    both_ways = sum((np.exp(log_p[i]) * (log_p[i] - log_p[j])).sum(-1) for i, j in itertools.permutations(range(networks), 2)).mean() / 2 / len(pairs)
    assert abs(js(logits) - by_scipy) < 1e-9 and abs(kl(logits) - both_ways) <= 1e-9 * (1 + both_ways)
    assert 0 <= js(logits) <= np.log(2) + 1e-12 and kl(logits) >= 4 * js(logits) - 1e-9
    differ = [(logits[i].argmax(-1) != logits[j].argmax(-1)).double().mean().item() for i, j in pairs]
    assert abs(disagreement(logits) - np.mean(differ)) < 1e-12
    assert ensemble_accuracy(logits[[0] * networks], logits[0].argmax(-1)) == 1          # copies of one network name what it names


@settings(max_examples=10)
@given(sizes, seeds, seeds)
def test_a_permuted_copy_is_as_far_as_the_network_itself(sizes, seed, other):
    model, generator = MLP(*sizes).double(), torch.Generator().manual_seed(seed)
    a, b, spec = init_state(model, seed), init_state(model, other), mlp_spec(model)
    x, y = torch.randn(12, sizes[0], generator=generator), torch.randint(sizes[-1], (12,), generator=generator)
    data = Data(x, y, x, y, sizes[-1], 0., 1.)
    p = random_perms(spec, seed)
    here, there = (interpolate(model, *pair, data, n=5) for pair in ((a, b), (permute(spec, p, a), permute(spec, p, b))))
    assert np.allclose(here.test_loss, there.test_loss, atol=1e-12)
    assert equal(between(a, b, 0), a) and equal(between(a, b, 1), b) and np.isclose(barrier(interpolate(model, a, a, data, n=3)), 0, atol=1e-12)


kinds = st.sampled_from(['conv', 'transposed', 'joined', 'residual', 'norm', 'gate', 'depthwise', 'twice'])


@settings(max_examples=60)
@given(st.lists(st.tuples(kinds, st.integers(2, 6)), min_size=1, max_size=7), st.booleans(), st.integers(0, 2**31))
def test_random_networks_are_traced_completely(plan, flat, seed):
    model = Grown(plan, flat).double().eval()
    x = torch.randn(3, 3, 6, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    spec, state = trace_spec(model, x), _randomised(model, seed)
    assert sorted(spec.sizes.values()) == sorted(model.expected)                      # no group is missed, none is split or merged
    f = lambda s: torch.func.functional_call(model, s, x)
    out = f(state)
    assert (f(permute(spec, random_perms(spec, seed), state)) - out).abs().max() <= 1e-9 * out.abs().max()
    check_spec(spec, model, x)                                                        # and moving one side only breaks it


@given(st.lists(st.integers(1, 9), min_size=2, max_size=6))
def test_traced_mlps_have_the_spec_written_by_hand(sizes):
    model = MLP(*sizes)
    spec = trace_spec(model, torch.ones(2, sizes[0]))
    assert spec == mlp_spec(model) and list(spec.sizes) == list(mlp_spec(model).sizes)


def test_deep_and_large_networks_are_traced():
    deep, resnet = MLP(8, *[8] * 1000, 4), import_torchvision().models.resnet50()
    assert len(trace_spec(deep, torch.ones(1, 8)).groups) == 1000                      # without recursion, and in one walk
    assert len(trace_spec(resnet, torch.ones(1, 3, 64, 64)).groups) == 37
