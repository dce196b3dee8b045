"The site can be built: every name has an API entry, and the links that nbdev adds lead somewhere."
import importlib, inspect, json, os, re, subprocess

import numpy as np
import pytest
from nbdev.doclinks import NbdevLookup
from nbdev.showdoc import show_doc

from conftest import BIN, ROOT

MODULES = sorted(p.stem for p in (ROOT/'sparse_lth').glob('[a-z]*.py'))
NOTEBOOKS = sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
NESTED = re.compile(r'\[[^\[\]\n]*\[`[^`\n]+`\]\([^)\n]*\)[^\[\]\n]*\]\(')


def in_code(markdown):
    "The lines of fenced code"
    inside, found = False, []
    for line in markdown.splitlines():
        if line.startswith('```'): inside = not inside
        elif inside: found.append(line)
    return found


@pytest.mark.parametrize('module', MODULES)
def test_every_public_name_has_an_api_entry(module):
    "nbdev renders it, and finds no name to link within the code of its signature, where a link stays raw"
    lookup, space = NbdevLookup(), importlib.import_module(f'sparse_lth.{module}')
    for name in getattr(space, '__all__', ()):
        value = getattr(space, name)
        entry = show_doc(value)._repr_markdown_()
        assert name in entry or not (inspect.isfunction(value) or inspect.isclass(value))
        for line in in_code(entry): assert lookup.link_line(line) == line, f'{module}.{name}: {line.strip()}'


def test_a_signature_that_can_not_be_rendered_would_be_noticed():
    def grid(x=np.linspace(-1, 2, 3)): "A default that is an array"
    with pytest.raises(ValueError, match='truth value of an array'): show_doc(grid)._repr_markdown_()


def test_a_name_in_a_comment_would_be_noticed():
    lookup = NbdevLookup()
    assert 'sparse_lth' in lookup.link_line('    data, # see `fit`')
    assert NESTED.search(lookup.linkify('trained by [`fit`](04_training.ipynb) here'))


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_no_link_within_a_link(path):
    "nbdev makes a link of every exported name in backticks, also where it is the text of a link already"
    lookup = NbdevLookup()
    for cell in json.loads(path.read_text())['cells']:
        data = [o.get('data', {}) for o in cell.get('outputs', ())]
        outputs = [''.join(d['text/markdown']) for d in data if 'text/markdown' in d]
        prose = [''.join(cell['source'])] if cell['cell_type'] == 'markdown' else []
        for text in prose + outputs:
            assert not NESTED.search(lookup.linkify(text)), text


QUARTO = """#!/bin/sh
# stands in for Quarto: writes what Quarto would, where it would
case "$*" in
    *README.md*) mkdir -p _docs/index_files
        echo 'a readme' >_docs/README.md
        echo 'a picture' >_docs/index_files/figure.png ;;
    *) mkdir -p _docs && ls >_docs/pages.txt ;;
esac
"""


def test_the_site_is_built_and_leaves_nothing_behind(checkout, tmp_path):
    "`make docs`, all of it but Quarto: nbdev executes what it executes for a site, and the checkout is as before"
    (tmp_path/'bin').mkdir()
    (tmp_path/'bin'/'quarto').write_text(QUARTO)
    (tmp_path/'bin'/'quarto').chmod(0o755)
    (checkout/'.venv').symlink_to(BIN.parent)
    git = ['git', '-c', 'user.name=a', '-c', 'user.email=a@example.org']
    for command in ('init', '-q'), ('add', '-A'), ('commit', '-qm', 'all'):
        subprocess.run([*git, *command], cwd=checkout, check=True)
    (checkout/'nbs'/'index.ipynb').touch()  # newer than README.md, which nbdev makes anew
    environment = os.environ | dict(PATH=f"{tmp_path/'bin'}:{os.environ['PATH']}", PYTHONPATH=str(checkout))
    command = ['make', '-o', '.venv/dev', 'docs']
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=1000)
    assert done.returncode == 0, done.stderr[-3000:]
    pages = (checkout/'_docs'/'pages.txt').read_text().split()
    assert {p.name for p in NOTEBOOKS if p.parent.name == 'nbs'} <= set(pages)
    changed = subprocess.run(['git', 'status', '--porcelain'], cwd=checkout, capture_output=True, text=True).stdout
    assert changed == ''
    for path in (checkout/'_proc').rglob('*.ipynb'):
        cells = json.loads(path.read_text())['cells']
        assert not [o for c in cells for o in c.get('outputs', ()) if o['output_type'] == 'error'], path.name
