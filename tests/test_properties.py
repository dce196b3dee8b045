"Properties that hold for any shape, sparsity and permutation, tried on random ones."
import torch
from hypothesis import given, settings, strategies as st

from sparse_lth.core import apply_masks, sparsity
from sparse_lth.models import MLP, init_state, prunable
from sparse_lth.pruning import imp_rounds, magnitude_masks
from sparse_lth.stats import holm, sign_flip_test
from sparse_lth.symmetry import check_spec, compose, identity_perms, invert, mlp_spec, permute, random_perms
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
