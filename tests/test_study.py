"Studies as users run them: photographs, images and networks of their own, several processes."
import json, os, shutil
from dataclasses import replace

import pytest
from PIL import Image

from conftest import CIFAR, ROOT
from processes import records
from sparse_lth.study import PRESETS, changed_options, jobs, results

needs_cifar = pytest.mark.skipif(not CIFAR, reason='no CIFAR-10 as an image folder: set CIFAR10_IMAGES to a folder or archive of it')
SHORT = [a for change in ('dense.epochs=1', 'imp.epochs=1', 'sparse.epochs=2', 'sparsities=.36', 'seeds=0,1') for a in ('--set', change)]


@needs_cifar
def test_photographs(console, tmp_path):
    "The preset for a CPU on real images, far shorter: two processes, records that say what they are of, and what can be compared"
    few = [a for change in ('train_images=256', 'test_images=200', 'match_images=128') for a in ('--set', change)]
    run = ['run', 'cifar10-cpu', '--data', f'cifar10-jpeg={CIFAR}', *few, *SHORT, '--store', tmp_path/'store', '--workers', 2]
    done = console(*run)
    assert done.returncode == 0, done.stderr
    assert 'resnet20 on CIFAR-10 (JPEG copy)' in done.stdout and '12 networks' in done.stdout
    frame = results(tmp_path/'store')
    assert set(frame.dataset) == {'cifar10-jpeg'} and set(frame.train_images) == {256} and set(frame.stats) == {'paper'}
    assert frame.groupby('start').size().to_dict() == dict(dense=4, imp=2, lth=2, naive=2, permuted=2)
    assert (frame[frame.start == 'lth'].true_sparsity < .34).all()                       # shortcuts stay dense
    again = console(*run)
    assert again.returncode == 0 and '0 of' in again.stdout and results(tmp_path/'store').equals(frame)
    assert 'nothing to compare' in console('compare', 'cifar10-cpu', '--store', tmp_path/'store').stdout
    (other := tmp_path/'other').mkdir()
    for split in 'train', 'test':
        for c in range(10):
            (other/split/f'{c}').mkdir(parents=True)
            for i in range(13): Image.new('RGB', (32, 32), (20 * c, i, 0)).save(other/split/f'{c}'/f'{i}.png')
    mixed = console(*(f'cifar10-jpeg={other}' if str(a).startswith('cifar10-jpeg=') else a for a in run), '--seeds', 3)
    assert mixed.returncode == 1 and 'are others than those' in mixed.stderr and 'Traceback' not in mixed.stderr


def test_images_and_networks_of_ones_own(console, tmp_path):
    "A folder without a split, split by each seed; a model from a file beside the command; helpers see both"
    for c in 'ab':
        (tmp_path/'pictures'/c).mkdir(parents=True)
        for i in range(40): Image.new('L', (8, 8), 3 * i + 100 * (c == 'b')).save(tmp_path/'pictures'/c/f'{i}.png')
    (tmp_path/'mine.py').write_text('from torch import nn\n\ndef net(width, data): return nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36 * width, data.n_classes))\n')
    run = ['run', 'digits', '--data', 'shades=pictures', '--set', 'model=mine:net', '--set', 'widths=4', '--set', 'dense.batch_size=16', '--set', 'imp.batch_size=16', '--set', 'sparse.batch_size=16',
           '--set', 'rewinds=0,1', *SHORT, '--store', 'store']
    environment = os.environ | {'PYTHONPATH': str(tmp_path), 'SPARSE_LTH_CACHE': str(tmp_path/'cache')}
    done = console(*run, '--workers', 2, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    frame = results(tmp_path/'store')
    assert len(frame) == 4 + 2 + 2 * 2 * 3 and set(frame.model) == {'mine:net'}
    assert len(json.loads((tmp_path/'store'/'images.json').read_text())) == 2              # one split per seed
    one = console(*run[:-1], 'one', cwd=tmp_path, env=environment)
    assert one.returncode == 0 and records(tmp_path/'one') == records(tmp_path/'store')
    shutil.rmtree(tmp_path/'pictures')
    lost = console(*run, '--seeds', 3, cwd=tmp_path, env=environment)
    assert lost.returncode == 1 and "'pictures' is neither a dataset" in lost.stderr and 'Traceback' not in lost.stderr


@pytest.mark.parametrize('name', sorted(p.stem for p in (ROOT/'results').glob('*.jsonl') if p.stem in PRESETS))
def test_published_records_are_those_of_the_presets(name):
    "What was published once is found under the keys that its preset gives today, and no option has joined them since"
    study = PRESETS[name]
    if name == 'cifar10-cpu': study = replace(study, dataset='cifar10-jpeg')
    trained = [j for j in jobs(study) if j.about['start'] not in ('chain', 'match')]
    published = results(ROOT/'results'/f'{name}.jsonl', study)
    assert published.config_hash.tolist() == [j.key for j in trained]
    assert len(results(ROOT/'results'/f'{name}.jsonl')) == len(trained)
    for start, some in published.groupby('start'):
        for option, value in changed_options(study, start).items(): assert set(some[option]) == {value}
