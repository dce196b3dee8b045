"What is committed belongs together: notebooks, library and README say the same."
import ast, json, os, subprocess, sys

import pytest

from conftest import BIN, ROOT

NOTEBOOKS = sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
MODULES = sorted((ROOT/'sparse_lth').glob('[a-z]*.py'))


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for part in ('nbs', 'sparse_lth') for p in (folder/part).rglob('*')
            if p.is_file() and '__pycache__' not in p.parts and p.suffix in ('.ipynb', '.py')}


def test_cleaning_and_exporting_change_nothing(checkout):
    before = contents(checkout)
    for command in 'nbdev_clean', 'nbdev_export': subprocess.run([BIN/command], cwd=checkout, check=True, timeout=300)
    after = contents(checkout)
    assert before.keys() == after.keys()
    assert [name for name in before if before[name] != after[name]] == []


def test_a_change_in_a_notebook_would_be_noticed(checkout):
    notebook = checkout/'nbs'/'00_core.ipynb'
    notebook.write_text(notebook.read_text().replace("'init_a', 'init_b'", "'init_b', 'init_a'"))
    before = contents(checkout)
    subprocess.run([BIN/'nbdev_export'], cwd=checkout, check=True, timeout=300)
    assert [name for name, content in contents(checkout).items() if before[name] != content] == ['sparse_lth/core.py']


def test_readme_is_made_from_the_index(checkout):
    readme = [sys.executable, 'tools/readme.py', '--check']
    assert subprocess.run(readme, cwd=checkout).returncode == 0
    for path in checkout/'README.md', checkout/'results'/'toy.png':
        content = path.read_bytes()
        path.write_bytes(content + b'by hand')
        done = subprocess.run(readme, cwd=checkout, capture_output=True, text=True)
        assert done.returncode == 1 and path.name in done.stderr
        path.write_bytes(content)
    assert subprocess.run(readme, cwd=checkout).returncode == 0


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_stored_outputs(path):
    "No notebook stores an error or a widget that a page can't move, each is small, and each that teaches shows results"
    cells = [c for c in json.loads(path.read_text())['cells'] if c['cell_type'] == 'code']
    outputs = [o for c in cells for o in c['outputs']]
    assert not [o for o in outputs if o['output_type'] == 'error' or o.get('name') == 'stderr']
    assert not [o for o in outputs if 'application/vnd.jupyter.widget-view+json' in o.get('data', {})]
    assert path.stat().st_size < 300_000
    assert outputs


@pytest.mark.parametrize('path', MODULES, ids=lambda p: p.stem)
def test_public_names_are_documented_and_quiet(path):
    "Every public definition has a docstring; only the console prints; no import goes to a higher number"
    order = [p.stem.split('_', 1)[1] for p in NOTEBOOKS if p.stem[0].isdigit()]
    tree = ast.parse(path.read_text())
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith('_'): assert ast.get_docstring(node), node.name
    calls = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    assert path.stem == 'study' or 'print' not in calls
    own = [n.module for n in tree.body if isinstance(n, ast.ImportFrom) and n.level == 1 and n.module]  # nbdev makes them relative
    assert [m for m in own if order.index(m) >= order.index(path.stem)] == []
    assert own or path.stem == 'core'


def test_notebooks_run_with_plain_python(checkout):
    "As on a machine with a GPU and without nbdev; a cell that fails is counted"
    run = lambda: subprocess.run([sys.executable, 'tools/gpu.py', '--cpu', 'nbs/02_data.ipynb'], cwd=checkout, capture_output=True, text=True, timeout=300)
    done = run()
    assert done.returncode == 0 and done.stdout.endswith('\n1 passed, 0 failed\n'), done.stderr
    notebook = checkout/'nbs'/'02_data.ipynb'
    notebook.write_text(notebook.read_text().replace("test_eq(len(data.test_y), 500)", "test_eq(len(data.test_y), 501)"))
    done = run()
    assert done.returncode == 1 and done.stdout.endswith('\n0 passed, 1 failed\n') and 'AssertionError' in done.stderr


def test_every_notebook_computes_with_one_thread():
    "Workers times threads would be more than the machine has; a lesson doesn't rely on whoever starts it"
    for path in NOTEBOOKS:
        first = next(''.join(c['source']) for c in json.loads(path.read_text())['cells'] if c['cell_type'] == 'code')
        assert first.startswith('#| hide\nimport torch\ntorch.set_num_threads(1)'), path.name


def test_what_fails_is_counted(checkout):
    "tools/test.py over one notebook that passes and one that fails, and a test of each kind; it says how far it is"
    keep = {checkout/'nbs'/'00_core.ipynb', checkout/'nbs'/'12_stats.ipynb'}
    for path in [*(checkout/'nbs').rglob('*.ipynb'), *(checkout/'tests').glob('*.py')]:
        if path not in keep: path.unlink()
    notebook = checkout/'nbs'/'12_stats.ipynb'
    cells = json.loads(notebook.read_text())
    wrong = dict(cell_type='code', execution_count=None, id='0', metadata={}, outputs=[], source=['assert False'])
    cells['cells'].append(wrong)
    notebook.write_text(json.dumps(cells))
    (checkout/'tests'/'test_kinds.py').write_text(
        'import pytest\ndef test_a(): pass\ndef test_b(): assert False\n@pytest.mark.skip\ndef test_c(): pass\n'
        '@pytest.mark.slow\ndef test_d(): pass\n')
    def run(*args, **environment):
        environment = {k: v for k, v in os.environ.items() if k != 'NO_SKIPS'} | environment
        command = [sys.executable, 'tools/test.py', *args]
        return subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=1000, env=environment)
    done = run()
    assert done.returncode == 1 and done.stdout.endswith('\n2 passed, 2 failed\n'), done.stdout
    assert '2/2] nbs/' in done.stdout
    assert run('--all', 'tests/test_kinds.py').stdout.endswith('\n2 passed, 1 failed\n')
    assert run('tests/test_kinds.py', NO_SKIPS='1').stdout.endswith('\n1 passed, 2 failed\n')
    assert run('-k', 'test_a').stdout.endswith('\n1 passed, 0 failed\n')
