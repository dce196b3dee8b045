"Images as users have them: real ones, downloads that break off, processes killed while they decode, disks and memories too small."
import gzip, hashlib, io, json, lzma, math, os, pickle, re, signal, subprocess, sys, tarfile, threading, time
import unicodedata, warnings, zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from conftest import CIFAR
from processes import BOUND, wait_until
from sparse_lth import data as images
from sparse_lth.core import PART, SparseLTHError, import_torchvision, load, save
from sparse_lth.data import Batches, cifar10, class_counts, image_folder, load_data, svhn
from sparse_lth.models import ResNet20, init_state, prunable
from sparse_lth.pruning import magnitude_masks
from sparse_lth.training import TrainConfig, fit, with_test

needs_cifar = pytest.mark.skipif(not CIFAR, reason='no CIFAR-10 as an image folder: set CIFAR10_IMAGES to a folder or archive of it')
TENSORS = 'train_x', 'train_y', 'test_x', 'test_y'


def same(a, b): return all(torch.equal(getattr(a, k), getattr(b, k)) for k in TENSORS)


def grey_of(name): return zlib.crc32(name.encode()) % 256


def plant(root, layout, classes=()):
    "Files by a layout: FOLDER|3png|2heic|NAME;FOLDER|... Images have the grey of their class, or else of their folder"
    root.mkdir(parents=True)
    for folder, *files in (part.split('|') for part in layout.split(';')):
        (root/folder).mkdir(parents=True, exist_ok=True)
        parts = folder.split('/')
        grey = grey_of(next((p for p in reversed(parts) if p in classes), parts[-1]))
        for file in files:
            several = re.fullmatch(r'(\d+)([A-Za-z]+)', file)
            for name in [f'{i}.{several[2]}' for i in range(int(several[1]))] if several else [file]:
                is_image = name.lower().endswith(images.SUFFIXES) and not name.startswith('.')
                if is_image: Image.new('L', (4, 4), grey).save(root/folder/name)
                else: (root/folder/name).write_bytes(b'something else')


def pack(root):
    "A tar archive of a folder, its contents at the top"
    with tarfile.open(path := root.with_suffix('.tar'), 'w') as archive:
        for inside in sorted(root.iterdir()): archive.add(inside, inside.name)
    return path


TWO = 'train/cat|3png;train/dog|3png;'
PETS = (6, 4, ('cat', 'dog'))
NFC, NFD = (unicodedata.normalize(form, 'h\u00e9ron') for form in ('NFC', 'NFD'))
LAYOUTS = {                                     # what: (files, size of both splits and classes or refusal, warning)
    'train and test': (TWO + 'test/cat|2png;test/dog|2png', PETS),
    'capitals': ('Train/cat|3png;Train/dog|3png;TEST/cat|2png;TEST/dog|2png', PETS),
    'training and testing': ('training/cat|3png;training/dog|3png;testing/cat|2png;testing/dog|2png', PETS),
    'train and val': (TWO + 'val/cat|2png;val/dog|2png', PETS),
    'train and valid': (TWO + 'valid/cat|2png;valid/dog|2png', PETS),
    'Training and Validation': ('Training/cat|3png;Training/dog|3png;Validation/cat|2png;Validation/dog|2png', PETS),
    'train and dev': (TWO + 'dev/cat|2png;dev/dog|2png', PETS),
    'three splits': (TWO + 'val/cat|1png;val/dog|1png;test/cat|2png;test/dog|2png', PETS,
                     r"has 2 images in 'val' that were left out, .* pass test='val'"),
    'an empty val': (TWO + 'val/cat;test/cat|2png;test/dog|2png', PETS),
    'notes in a folder eval': (TWO + 'eval/first|run.log;val/cat|2png;val/dog|2png', PETS),
    'wrapped twice': ('pets/v2/train/cat|3png;pets/v2/train/dog|3png;pets/v2/val/cat|2png;pets/v2/val/dog|2png', PETS),
    'a Mac archive': ('pets/train/cat|3png|._0.png;pets/train/dog|3png;pets/test/cat|2png;pets/test/dog|2png|.DS_Store;'
                      '__MACOSX/pets/train/cat|._0.png|1png', PETS),
    'what systems leave': (TWO + 'test/cat|2png|Thumbs.db;test/dog|2png|desktop.ini|.DS_Store;test/.cache|1png;'
                           'test/cat/@eaDir|1png;.git|1png;lost+found', PETS),
    'notes': (TWO + 'test/cat|2png|labels.csv|0.xml|1.json;test/dog|2png|README|LICENSE.md|notes.TXT;.|README.md',
              PETS),
    'capital endings': ('train/cat|3PNG;train/dog|3Jpg;test/cat|2BMP;test/dog|2png', PETS),
    'deeper': ('train/cat/old|3png;train/dog|2png;train/dog/a/b|1png;test/cat|2png;test/dog|2png', PETS),
    'classes at the top': ('cat|5png;dog|5png', (8, 2, ('cat', 'dog'))),
    'wrapped classes': ('pets/cat|5png;pets/dog|5png;pets|README.md;docs/old|notes.txt', (8, 2, ('cat', 'dog'))),
    'spaces and other scripts': ('hot dog|5png;größe|5png;猫|5png;train station|5png',
                                 (16, 4, ('größe', 'hot dog', 'train station', '猫'))),
    'letters in both cases': ('train/A|3png;train/a|3png;test/A|2png;test/a|2png', (6, 4, ('A', 'a'))),
    'a class called train': ('train/train|3png;train/dog|3png;test/train|2png;test/dog|2png',
                             (6, 4, ('dog', 'train'))),
    'some not read': ('train/cat|3png|2heic|1mov;train/dog|3png|1svg;test/cat|2png;test/dog|2png|1heic', PETS,
                      r"without 5 of its files \(1 \.heic of class 'dog' in test, 2 \.heic, 1 \.mov of class 'cat' in "
                      r"train, 1 \.svg of class 'dog' in train\)"),
    'as many not read': ('cat|5png|5HEIC;dog|5png|1|noending', (8, 2, ('cat', 'dog')),
                         r"without 7 of its files \(5 \.heic of class 'cat', 2 without ending of class 'dog'\)"),
    'most not read': ('cat|5png|6heic;dog|5png',
                      r"5 images of class 'cat' that can be read, but 6 that can't \(6 \.heic\)"),
    'most not read in a split': (TWO + 'val/cat|2png|2heic|1psd;val/dog|2png',
                                 r"2 images of class 'cat' in test that can be read, but 3 that"),
    'a class not read': ('cat|5png;dog|5heic', r"no images of class 'dog' that can be read, but 5 that can't"),
    'nothing read': ('cat|5heic;dog|4svg', r'has no images .*, but 5 \.heic, 4 \.svg: expected train/CLASS'),
    'images beside classes': ('cat|5png;dog|5png;.|x.png', r"has '(\./)?x.png' where no class can be told"),
    'images beside classes in a split': (TWO + 'train|x.png;test/cat|2png;test/dog|2png',
                                         r"'train/x.png' where no class"),
    'no classes': ('train|5png;test|5png', r"'train/\d.png' where no class|'test/\d.png' where no class"),
    'no classes, other names': ('train2017|5png;val2017|5png', r"has 'train2017', 'val2017' at the top, expected"),
    'test without labels': (TWO + 'val/cat|2png;val/dog|2png;test|9png',
                            r"'test/\d.png' where no class .* name the folder .* test="),
    'an empty class': ('cat|5png;dog|5png;bird', r"no images of class 'bird' \("),
    'an empty class in a split': (TWO + 'train/bird;test/cat|2png;test/dog|2png', r"no images of class 'bird' in t"),
    'a class in one split': (TWO + 'test/cat|2png', r"no images of class 'dog' in test"),
    'train alone': (TWO[:-1], r"has 'train' at the top and no folder of test images, .* split at random"),
    'Train alone': ('pets/Train/cat|3png;pets/Train/dog|3png', r"has 'Train' at the top and no folder of test images"),
    'no train': ('val/cat|3png;val/dog|3png;test/cat|3png;test/dog|3png', r"no folder of training images"),
    'an empty test': (TWO + 'test;val/cat|2png;val/dog|2png', r"no images of class 'cat' in test"),
    'train and Train': (TWO + 'Train/cat|1png;Train/dog|1png;test/cat|2png;test/dog|2png',
                        r"2 folders of training images, 'Train', 'train'"),
    'test and testing': (TWO + 'test/cat|1png;test/dog|1png;testing/cat|2png;testing/dog|2png',
                         r"2 folders of test images, .*name one by test="),
    'val and dev': (TWO + 'val/cat|1png;val/dog|1png;dev/cat|2png;dev/dog|2png',
                    r"2 folders of test images, 'dev', 'val'"),
    'splits and others': (TWO + 'test/cat|1png;test/dog|1png;extra/cat|2png',
                          r"has 'test', 'train' and 'extra' at the top"),
    'a split among classes': ('bus|5png;car|5png;train|5png', r"has 'train' and 'bus', 'car' at the top"),
    'splits in classes': ('cat/train|3png;cat/test|2png;dog/train|3png;dog/test|2png', r"where no class can be told"),
    'classes by case': ('train/Cat|3png;train/dog|3png;val/cat|2png;val/dog|2png',
                        r"no images of class 'Cat' in test but some of 'cat', a name that differs"),
    'classes by accents': (f'train/{NFC}|3png;train/dog|3png;val/{NFD}|2png;val/dog|2png',
                           r"differs in letter case, spaces or the form of accents"),
    'one class twice by accents': (f'{NFC}|3png;{NFD}|3png', r"differ in the form of accents alone"),
    'one class': ('train/cat|3png;test/cat|3png', r"only one class, 'cat'"),
}


def told(load):
    "What a function returns, and what it warns of"
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter('always')
        return load(), [str(w.message) for w in found]


@pytest.mark.parametrize('packed', [False, True], ids=['folder', 'archive'])
@pytest.mark.parametrize('name', LAYOUTS)
def test_layouts_that_people_have(tmp_path, name, packed):
    "Read, with labels that are those of the folders, or refused in one sentence; the same from the cache"
    layout, expected, *warning = LAYOUTS[name]
    plant(tmp_path/'x', layout, expected[2] if isinstance(expected, tuple) else ())
    path = pack(tmp_path/'x') if packed else tmp_path/'x'
    seed = None if 'test' in layout.lower() or 'train/' in layout.lower() else 0
    for _ in range(2):
        load = lambda: load_data(path, seed=seed, cache=tmp_path/'cache', progress=False)
        if isinstance(expected, str):
            with pytest.raises(SparseLTHError, match=expected) as e: load()
            assert str(e.value).startswith(f"'{path}' has") and str(e.value).endswith('.') and '\n' not in str(e.value)
            continue
        data, said = told(load)
        assert (len(data.train_x), len(data.test_x), data.classes) == expected
        for x, y in (data.train_x, data.train_y), (data.test_x, data.test_y):
            assert x.flatten(1).max(1).values.tolist() == [grey_of(data.classes[c]) for c in y]
        assert len(said) == len(warning), said
        for expected_warning, sentence in zip(warning, said):
            assert re.search(expected_warning, sentence) and sentence.endswith('.') and '\n' not in sentence
    assert len(list((tmp_path/'cache').iterdir())) == isinstance(expected, tuple)


def test_the_folder_of_test_images_is_chosen_by_name(tmp_path):
    "Where a folder has no labels, as ImageNet's test set, or two could be meant"
    plant(tmp_path/'x', TWO + 'val/cat|2png;val/dog|2png;test|9png;extra')
    choose = lambda path, test: told(lambda: load_data(path, test=test, cache=tmp_path/'cache', progress=False))
    for path in tmp_path/'x', pack(tmp_path/'x'):
        data, said = choose(path, 'val')
        assert (len(data.train_x), len(data.test_x), said) == (6, 4, [])
        for wrong in 'Val', 'extra', 'train':
            with pytest.raises(SparseLTHError, match=f"test is '{wrong}', expected"): choose(path, wrong)


def test_endings_that_are_ignored(tmp_path):
    "Without a word, and where they would be the most; of images too"
    plant(tmp_path/'x', 'cat|5png|9mat|1gif;dog|5png|1heic')
    options = dict(seed=0, channels=1, cache=tmp_path/'cache', progress=False)
    load = lambda *ignore: told(lambda: load_data(tmp_path/'x', ignore=ignore, **options))
    with pytest.raises(SparseLTHError, match=r'but 9 that .*pass their endings as ignore='): load()
    data, said = load('.mat')
    assert len(data.train_x) == 9 and re.search(r"without 1 of its files \(1 \.heic of class 'dog'\)", *said)
    data, said = load('.MAT', '.heic', '.gif')
    assert len(data.train_x) == 8 and said == []


def alike(root):
    "Ten pictures of each of two classes, all of one size in bytes and one time"
    for c, first in ('cat', 0), ('dog', 100):
        (root/c).mkdir(parents=True)
        for i in range(10): Image.new('L', (8, 8), first + i).save(root/c/f'{i}.bmp')
    give_one_time(root)


def give_one_time(*roots):
    for root in roots:
        for p in [root, *root.rglob('*')]: os.utime(p, (1e9, 1e9))


@pytest.mark.parametrize('packed', [False, True], ids=['folder', 'archive'])
def test_the_cache_knows_images_by_their_bytes(tmp_path, monkeypatch, packed):
    "Where sizes and times are as before: classes exchanged, an image altered, two images exchanged"
    monkeypatch.setenv('SPARSE_LTH_CACHE', str(tmp_path/'cache'))
    alike(root := tmp_path/'pets')
    path = root.with_suffix('.tar') if packed else root

    def outside():
        "What is to be seen without opening a file, and what the images really are"
        give_one_time(root)
        if packed: give_one_time(pack(root))
        files = sorted(root.rglob('*.bmp'))
        seen = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in [*files, path]]
        return seen, {(p.parent.name, int(np.asarray(Image.open(p)).max())) for p in files}

    def exchange(a, b):
        for old, new in (a, 'aside'), (b, a), ('aside', b): (root/old).rename(root/new)

    changes = {'nothing': lambda: None, 'classes': lambda: exchange('cat', 'dog'),
               'files': lambda: exchange('cat/0.bmp', 'dog/0.bmp'),
               'bytes': lambda: Image.new('L', (8, 8), 255).save(root/'cat'/'3.bmp')}
    before, truth = outside()
    load_data(path, seed=0, progress=False)
    file, = (tmp_path/'cache').iterdir()
    for what, change in changes.items():
        written, old = file.stat().st_ino, truth                                  # a file made anew is another one
        change()
        seen, truth = outside()
        assert seen == before and (truth == old) == (what == 'nothing')
        data = load_data(path, seed=0, progress=False)
        pairs = (data.train_x, data.train_y), (data.test_x, data.test_y)
        assert {(data.classes[c], int(image.max())) for x, y in pairs for image, c in zip(x, y)} == truth, what
        assert same(data, load_data(path, seed=0, progress=False, cache=False))
        assert (file.stat().st_ino == written) == (what == 'nothing')


def test_a_cache_of_an_earlier_format_is_made_again(tmp_path):
    "Its stamp came from names, sizes and times"
    alike(tmp_path/'pets')
    load_again = lambda: load_data(tmp_path/'pets', seed=0, cache=tmp_path/'cache', progress=False)
    data = load_again()
    file, = (tmp_path/'cache').iterdir()
    names = sorted(p.relative_to(tmp_path/'pets').as_posix() for p in (tmp_path/'pets').rglob('*.bmp'))
    seen = [(n, s.st_size, s.st_mtime_ns) for n in names for s in [os.stat(tmp_path/'pets'/n)]]
    stamp = hashlib.sha256(repr((1, (None, None), seen)).encode()).hexdigest()
    save(file, {'x': torch.zeros(20, 1, 8, 8, dtype=torch.uint8), 'y': torch.arange(20) % 2},
         {'classes': '["cat", "dog"]', 'train': '20', 'stamp': stamp})
    assert same(load_again(), data)


def test_a_folder_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    alike(tmp_path/'pets')
    decode = images._decode_all
    def meanwhile(*args):
        x = decode(*args)
        (tmp_path/'pets'/'cat'/'9.bmp').rename(tmp_path/'pets'/'dog'/'10.bmp')
        return x
    monkeypatch.setattr(images, '_decode_all', meanwhile)
    with pytest.raises(SparseLTHError, match='changed while it was read'):
        load_data(tmp_path/'pets', seed=0, cache=tmp_path/'cache', progress=False)
    assert list((tmp_path/'cache').iterdir()) == []


@pytest.fixture(scope='module')
def cifar(tmp_path_factory):
    "All of CIFAR-10, and the folder with its cache"
    cache = tmp_path_factory.mktemp('cache')
    return load_data(CIFAR, cache=cache), cache


@needs_cifar
def test_all_of_cifar10(cifar):
    data, cache = cifar
    assert class_counts(data).values.tolist() == [[5000, 1000]] * 10
    assert data.classes == ('airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck')
    assert torch.allclose(torch.tensor([data.mean, data.std]), torch.tensor([[.4914, .4822, .4465], [.2470, .2435, .2616]]), atol=.003)
    assert set(data.train_y[:1000].tolist()) == set(range(10))                    # the first are a fair sample
    file, = cache.iterdir()
    written = file.stat().st_mtime_ns
    assert same(load_data(CIFAR, cache=cache), data) and file.stat().st_mtime_ns == written
    with open(file, 'r+b') as f:
        f.seek(-1000, 2)
        f.write(bytes(range(200)))
    assert same(load_data(CIFAR, cache=cache), data) and file.stat().st_mtime_ns > written


@needs_cifar
def test_augmented_batches_are_torchvisions_to_the_last_bit(cifar):
    data = cifar[0]
    f, paper = import_torchvision().transforms.functional, ((.485, .456, .406), (.229, .224, .225))
    data = type(data)(*(getattr(data, k) for k in TENSORS), 10, *paper, data.classes)
    for channels_last in False, True:
        batches = Batches(data, 128, shuffle=True, augment=True, seed=3, channels_last=channels_last)
        for epoch in 0, 5:
            x, y = next(batches.epoch(epoch))
            order, (top, left, flip) = batches.order(epoch)[:128], batches.crops(epoch)
            assert torch.equal(y, data.train_y[order]) and {top.min().item(), top.max().item()} == {0, 8} and .45 < flip.float().mean() < .55
            for i, t, l, mirror, ours in zip(order, top.tolist(), left.tolist(), flip, x):
                window = f.crop(f.pad(Image.fromarray(data.train_x[i].permute(1, 2, 0).numpy()), 4), t, l, 32, 32)
                assert torch.equal(f.normalize(f.to_tensor(f.hflip(window) if mirror else window), *paper), ours)


@needs_cifar
def test_a_sparse_resnet_learns_from_photographs(cifar):
    data = cifar[0].head(4096, 1000)
    model = ResNet20(1/2)
    model.load_state_dict(init_state(model, 0))
    masks = magnitude_masks(model.state_dict(), prunable(model), .5)
    config = TrainConfig(3, .08, augment=True, channels_last=True, bf16=True)
    run = fit(model, data, config, masks=masks, epoch_hooks=[with_test(data, every=3)])
    assert run.history[-1]['train_loss'] < run.history[0]['train_loss'] - .1 and run.history[-1]['test_accuracy'] > .25     # .1 is chance
    assert all((run.state[n][~m] == 0).all() for n, m in masks.items())


def cifar_archive():
    "60,000 images in CIFAR-10's own format, each of one grey that tells its class, and what torchvision must believe of them"
    md5, files = lambda raw: hashlib.md5(raw).hexdigest(), {}
    for name in [f'data_batch_{i}' for i in range(1, 6)] + ['test_batch']:
        labels = np.arange(10_000) % 10
        files[name] = pickle.dumps({'data': np.repeat(labels[:, None] * 20, 3072, 1).astype(np.uint8), 'labels': labels.tolist()})
    files['batches.meta'] = pickle.dumps({'label_names': [f'class {i}' for i in range(10)]})
    with tarfile.open(fileobj=(out := io.BytesIO()), mode='w:gz', compresslevel=1) as archive:
        for name, raw in files.items():
            info = tarfile.TarInfo(f'cifar-10-batches-py/{name}')
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    lists = dict(train_list=[[f'data_batch_{i}', md5(files[f'data_batch_{i}'])] for i in range(1, 6)], test_list=[['test_batch', md5(files['test_batch'])]])
    return out.getvalue(), lists | dict(tgz_md5=md5(out.getvalue()), meta=dict(filename='batches.meta', key='label_names', md5=md5(files['batches.meta'])))


@pytest.fixture
def server():
    "CIFAR-10's server on this machine; it sends half and then waits while `slow` is set, and cuts off there while `broken` is"
    content, facts = cifar_archive()
    class Handler(BaseHTTPRequestHandler):
        slow, broken = threading.Event(), threading.Event()
        def do_HEAD(self):
            self.send_response(200)
            self.send_header('Content-Length', str(len(content)))
            self.end_headers()
        def do_GET(self):
            self.do_HEAD()
            self.wfile.write(content[:len(content) // 2])
            if self.broken.is_set(): return
            for _ in range(10 * BOUND):
                if self.slow.is_set(): time.sleep(.1)
            try: self.wfile.write(content[len(content) // 2:])
            except OSError: pass
        def log_message(self, *_): pass
    with ThreadingHTTPServer(('127.0.0.1', 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield Handler, facts | dict(url=f'http://127.0.0.1:{http.server_port}/cifar-10-python.tar.gz'), http.shutdown
        http.shutdown()


LOAD = """
import json, sys
from sparse_lth.core import SparseLTHError, import_torchvision
from sparse_lth.data import cifar10
for name, value in json.loads(sys.argv[1]).items(): setattr(import_torchvision().datasets.CIFAR10, name, value)
try: data = cifar10(cache=sys.argv[2])
except SparseLTHError as e: sys.exit(str(e))
print(len(data.train_x), data.classes[3], [data.train_x[data.train_y == c].float().mean().item() for c in range(10)])
"""


def start(facts, cache):
    "A process that downloads; it can be interrupted although the shell that runs the tests may not"
    return subprocess.Popen([sys.executable, '-c', LOAD, json.dumps(facts), cache], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {'no_proxy': '*'},
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))


def wait_for(condition, process):
    "Wait for a condition while a process runs"
    wait_until(lambda: condition() or process.poll() is not None, 'the download had begun')
    assert process.poll() is None, process.communicate()


def test_a_download_that_breaks_off(server, tmp_path):
    handler, facts, shutdown = server
    arrived = lambda: [p for p in tmp_path.rglob('*.gz') if p.stat().st_size]
    handler.slow.set()
    for sign, left in (signal.SIGINT, 0), (signal.SIGKILL, 1):
        process = start(facts, tmp_path)
        wait_for(arrived, process)
        process.send_signal(sign)
        process.communicate(timeout=BOUND)
        assert process.returncode != 0
        found = list(tmp_path.iterdir())
        assert len(found) == left and all(re.fullmatch(r'\..*\.part', p.name) for p in found)          # nothing that looks whole
    handler.slow.clear()
    handler.broken.set()
    process = start(facts, tmp_path)
    said = process.communicate(timeout=BOUND)[1].splitlines()[-1]
    assert process.returncode == 1 and said.startswith('CIFAR10 could not be downloaded (') and 'pass root=' in said
    handler.broken.clear()
    os.utime(found[0], (0, 0))                                                    # what was killed long ago is cleared away
    process = start(facts, tmp_path)
    out, err = process.communicate(timeout=BOUND)
    assert process.returncode == 0, err
    assert out.split(maxsplit=3)[0] == '50000' and 'class 3' in out and json.loads(out[out.index('['):]) == [20. * c for c in range(10)]
    assert '100%' in err                                                          # a bar was shown
    assert [p.name for p in tmp_path.iterdir()] == ['cifar10.safetensors']
    shutdown()
    process = start(facts, tmp_path)
    assert process.communicate(timeout=BOUND)[0] == out                             # no network needed any more


def test_files_that_torchvision_has_already(server, tmp_path, monkeypatch):
    handler, facts, _ = server
    dataset = import_torchvision().datasets.CIFAR10
    for name, value in facts.items(): monkeypatch.setattr(dataset, name, value)
    dataset(tmp_path/'here', download=True)
    data = cifar10(tmp_path/'here', cache=False, stats='paper')
    assert (tuple(data.train_x.shape), tuple(data.test_x.shape), data.std) == ((50_000, 3, 32, 32), (10_000, 3, 32, 32), (.229, .224, .225))
    (tmp_path/'here'/'cifar-10-batches-py'/'test_batch').write_bytes(b'altered')
    with pytest.raises(SparseLTHError, match='is not in .*, or damaged'): cifar10(tmp_path/'here', cache=False)


def test_svhn(tmp_path, monkeypatch):
    from scipy.io import savemat
    from sparse_lth.data import COUNTS
    dataset, lists = import_torchvision().datasets.SVHN, {}
    for split, counts in zip(('train', 'test'), COUNTS['svhn']):
        labels = np.repeat(np.arange(10), counts)
        images = np.zeros((32, 32, 3, len(labels)), np.uint8)
        images[0, 1, 2] = labels                                                  # row 0, column 1, blue
        savemat(path := tmp_path/f'{split}_32x32.mat', {'X': images, 'y': np.where(labels, labels, 10)[:, None].astype(np.uint8)}, do_compression=True)
        lists[split] = ['', path.name, hashlib.md5(path.read_bytes()).hexdigest()]
    monkeypatch.setattr(dataset, 'split_list', lists)
    data = svhn(tmp_path, cache=False, stats='paper')
    for x, y in (data.train_x, data.train_y), (data.test_x, data.test_y):
        assert torch.equal(x[:, 2, 0, 1].long(), y) and x[:, :2].max() == 0
    assert (len(data.train_x), len(data.test_x), data.classes[0]) == (73_257, 26_032, '0')


@pytest.fixture
def many_pictures(tmp_path):
    "4,000 pictures of 64x64 pixels, which take a while"
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for split in 'train', 'test':
        for c in 'cat', 'dog':
            folder = tmp_path/'pictures'/split/c
            folder.mkdir(parents=True)
            noise.save(folder/'0.png')
            for i in range(1, 1000): os.link(folder/'0.png', folder/f'{i}.png')
    return tmp_path/'pictures'


DECODE = """
import sys
from sparse_lth import data
opened, count = data._opened, 0
def opened_until(*args):
    "As before, but wait at the image of a number"
    global count
    count += 1
    if count == int(sys.argv[3]):
        print('in the midst', flush=True)
        sys.stdin.readline()
    return opened(*args)
data._opened = opened_until
data.image_folder(sys.argv[1], cache=sys.argv[2])
"""


@pytest.mark.parametrize('sign', [signal.SIGINT, signal.SIGKILL])
def test_interrupted_while_decoding(many_pictures, tmp_path, sign):
    "At an image in the midst, where the process waits to be interrupted"
    listen = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)
    pipes = dict.fromkeys(('stdin', 'stdout', 'stderr'), subprocess.PIPE)
    def run(stop_at):
        command = [sys.executable, '-c', DECODE, many_pictures, tmp_path/'cache', str(stop_at)]
        return subprocess.Popen(command, text=True, preexec_fn=listen, **pipes)
    process = run(stop_at=3000)
    assert process.stdout.readline() == 'in the midst\n'
    process.send_signal(sign)
    assert 'decoding:' in process.communicate(timeout=BOUND)[1]                   # the bar
    assert process.returncode != 0
    assert not (tmp_path/'cache').exists() or list((tmp_path/'cache').iterdir()) == []
    process = run(stop_at=0)
    process.communicate(timeout=BOUND)
    assert process.returncode == 0
    file, = (tmp_path/'cache').iterdir()
    assert load(file)['x'].shape == (4000, 3, 64, 64)


def test_a_cache_on_a_full_disk(many_pictures, tmp_path):
    "A disk of one megabyte, in a mount namespace of its own"
    if subprocess.run(['unshare', '-rm', 'true'], capture_output=True).returncode: pytest.skip('this system gives no mount namespace (unshare -rm)')
    disk, program = tmp_path/'disk', tmp_path/'program.py'
    disk.mkdir()
    program.write_text(f"import os, sys\nfrom sparse_lth.core import SparseLTHError\nfrom sparse_lth.data import image_folder\ntry: image_folder({str(many_pictures)!r}, cache={str(disk)!r}, progress=False)\n"
                       f"except SparseLTHError as e: print(e, os.listdir({str(disk)!r}))")
    done = subprocess.run(['unshare', '-rm', 'sh', '-c', f'mount -t tmpfs -o size=1m tmpfs {disk} && {sys.executable} {program}'], capture_output=True, text=True, timeout=BOUND)
    assert 'No space left on device' in done.stdout and 'make room or choose another folder' in done.stdout and done.stdout.endswith('[]\n'), done


def test_a_folder_larger_than_the_memory(tmp_path):
    "One large picture under so many names that together they have more pixels than this machine has bytes; nothing is patched"
    side = 9000
    n = 2 + psutil.virtual_memory().total // side**2
    for split in 'train', 'test':
        for c in 'cat', 'dog': (tmp_path/'large'/split/c).mkdir(parents=True)
    Image.new('L', (side, side)).save(first := tmp_path/'large'/'train'/'cat'/'0.png')
    for split, c, count in ('train', 'cat', n), ('train', 'dog', 2), ('test', 'cat', 2), ('test', 'dog', 2):
        for i in range(1, count): os.link(first, tmp_path/'large'/split/c/f'{i}.png')
    need = (1.5 * (n + 3) + 4) * side**2 / 1e9
    refusal = rf'needs at least {need:,.1f} GB of memory, but [\d.,]+ GB are free: use fewer images'
    with pytest.raises(SparseLTHError, match=refusal):
        image_folder(tmp_path/'large', cache=tmp_path/'cache', progress=False)
    assert not (tmp_path/'cache').exists() or list((tmp_path/'cache').iterdir()) == []


@pytest.mark.parametrize('packed', [False, True], ids=['folder', 'archive'])
@pytest.mark.parametrize('seed, copies', [(None, 1.5), (0, 2.5)])
def test_sizes_that_cannot_fit_are_refused_before_decoding(tmp_path, monkeypatch, packed, seed, copies):
    monkeypatch.setattr(images, '_opened', lambda *_: pytest.fail('an image was decoded'))
    split = 'train/cat|6png;train/dog|6png;val/cat|6png;val/dog|6png'
    plant(tmp_path/'pets', split if seed is None else 'cat|12png;dog|12png')
    path = pack(tmp_path/'pets') if packed else tmp_path/'pets'
    just_too_large = math.isqrt(int(psutil.virtual_memory().total / copies / 24)) + 1
    for size, channels in (just_too_large, None), (100_000, 3), (2**31, None), (10**12, 1):
        need = copies * 24 * size**2 * (channels or 1) / 1e9
        with pytest.raises(SparseLTHError, match=rf"needs at least {need:,.1f} GB of memory, but .*with size=\.$"):
            load_data(path, seed=seed, size=size, channels=channels, cache=tmp_path/'cache', progress=False)
    assert list((tmp_path/'cache').iterdir()) == []


SCARCE = """
import resource, sys
from pathlib import Path
from sparse_lth.core import SparseLTHError
from sparse_lth.data import load_data
used = 1024 * int(Path('/proc/self/status').read_text().split('VmSize:')[1].split()[0])
resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
try: load_data(sys.argv[1], size=1000, cache=False, progress=False)
except SparseLTHError as e: print(e)
"""


@pytest.mark.skipif(not os.path.exists('/proc/self/status'), reason='no /proc, which tells the size of a process')
def test_memory_that_runs_out_although_it_is_free(tmp_path):
    "A limit on the addresses of a process is seen by no measure of free memory"
    plant(tmp_path/'pets', 'train/cat|100png;train/dog|100png;test/cat|100png;test/dog|100png')         # 400 MB
    done = subprocess.run([sys.executable, '-c', SCARCE, tmp_path/'pets'], capture_output=True, text=True, timeout=BOUND)
    said = r"(The memory ran out while '.*pets' was read|'.*pets' needs at least .*): use fewer images, .*size=\.\n"
    assert re.fullmatch(said, done.stdout), done


MEMORY = """
import re, sys
from sparse_lth.data import image_folder
peak = lambda: 1024 * int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])
before = peak()
data = image_folder(sys.argv[1], cache=sys.argv[2], progress=False, seed=eval(sys.argv[3]))
print((peak() - before) / (data.train_x.nbytes + data.test_x.nbytes))
"""


@pytest.mark.skipif(not os.path.exists('/proc/self/status'), reason='this system has no /proc, which tells the peak of a process')
@pytest.mark.parametrize('seed, copies', [(None, 1.5), (0, 2.5)])
def test_no_more_memory_than_was_asked_for(tmp_path, seed, copies):
    "When decoding, and when loading again; with folders for the splits, and split at random"
    for folder in ('pictures/train', 'pictures/test') if seed is None else ('pictures',):
        for c in 'cat', 'dog':
            (place := tmp_path/folder/c).mkdir(parents=True)
            Image.radial_gradient('L').resize((400, 400)).convert('RGB').save(place/'0.png')
            for i in range(1, 200): os.link(place/'0.png', place/f'{i}.png')
    for _ in range(2):
        done = subprocess.run([sys.executable, '-c', MEMORY, tmp_path/'pictures', tmp_path/'cache', str(seed)], capture_output=True, text=True, timeout=BOUND)
        assert .9 < float(done.stdout) < copies, done


def pictures_in_a_tar():
    "A plain archive of 24 small pictures, and where its headers are"
    files = {}
    for split in 'train', 'test':
        for i in range(12):
            Image.fromarray(np.random.default_rng([len(split), i]).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(out := io.BytesIO(), 'png')
            files[f'{split}/{"cat" if i % 2 else "dog"}/{i}.png'] = out.getvalue()
    with tarfile.open(fileobj=(out := io.BytesIO()), mode='w') as archive:
        for name, raw in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as archive: return out.getvalue(), [m.offset for m in archive]


def test_a_damaged_archive_is_never_taken_for_a_smaller_dataset(tmp_path):
    "Cut anywhere, also before it was packed; a bit flipped in a header; two in one file"
    whole, headers = pictures_in_a_tar()
    rng, refused = np.random.default_rng(0), 0
    (tmp_path/'whole.tar').write_bytes(whole)
    expected = image_folder(tmp_path/'whole.tar', cache=False, progress=False)
    def flipped(at):
        raw = bytearray(whole)
        raw[at] ^= 1 << rng.integers(8)
        return bytes(raw)
    end = headers[-1] + 512
    cuts = [*rng.integers(1, end, 60), *(h + d for h in headers[1:] for d in (0, 100, 512))]
    damaged = [whole[:n] for n in cuts] + [flipped(h + rng.integers(0, 512)) for h in headers for _ in range(4)] + [whole + whole]
    for i, raw in enumerate(damaged):
        for pack, suffix in ((lambda r: r), 'tar'), (gzip.compress, 'tar.gz'), (lzma.compress, 'tar.xz'):
            path = tmp_path/f'{i}.{suffix}'
            path.write_bytes(pack(raw))
            try: data = image_folder(path, cache=False, progress=False)
            except SparseLTHError: refused += 1
            else: assert same(data, expected), (i, suffix)
    assert refused > 2.5 * len(cuts)


def test_killed_while_saving(tmp_path):
    "What is there is whole, and what was left behind can be told"
    program = f"import torch\nfrom sparse_lth.core import save\ntree = {{'x': torch.ones(200_000_000, dtype=torch.uint8)}}\nprint('go', flush=True)\nwhile True: save({str(tmp_path/'x.safetensors')!r}, tree)"
    parts = lambda: [p.name for p in tmp_path.iterdir() if PART.fullmatch(p.name)]
    def halted(process, so_far):
        "Stop a process and tell whether it is writing; if not, let it go on"
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)                                     # it has stopped
        if len(parts()) > so_far: return True
        process.send_signal(signal.SIGCONT)
    for kills in range(6):
        process = subprocess.Popen([sys.executable, '-c', program], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == 'go\n'
        wait_until(lambda: halted(process, kills), 'a process was caught while it writes')
        process.kill()
        process.wait()
    assert len(parts()) == 6 and {p.name for p in tmp_path.iterdir()} <= {*parts(), 'x.safetensors'}
    if (tmp_path/'x.safetensors').exists(): assert load(tmp_path/'x.safetensors')['x'].sum() == 200_000_000


def test_many_at_once(many_pictures, tmp_path):
    "Processes that decode one folder into one cache do not disturb each other"
    code = f"from sparse_lth.data import image_folder; d = image_folder({str(many_pictures)!r}, cache={str(tmp_path/'cache')!r}, progress=False); print(len(d.train_x), d.classes)"
    processes = [subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for p in processes: assert p.communicate(timeout=BOUND) == ("2000 ('cat', 'dog')\n", ''), p.returncode
    assert len(list((tmp_path/'cache').iterdir())) == 1
