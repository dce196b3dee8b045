"""Execute notebooks and store their outputs; cells flagged `slow`, `cuda` or `eval: false` keep what they had.

    python tools/execute.py                    # all of them, in order
    python tools/execute.py nbs/04_training.ipynb nbs/index.ipynb
"""
import os, re, sys, time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
SKIP = re.compile(r'^#\|\s*(slow|cuda|eval:\s*false)\b', re.M)


class UnflaggedClient(NotebookClient):
    "A notebook client that passes over flagged cells"
    async def async_execute_cell(self, cell, cell_index, **kwargs):
        if cell.cell_type == 'code' and SKIP.search(cell.source): return cell
        return await super().async_execute_cell(cell, cell_index, **kwargs)


def execute(path: Path):
    "Run one notebook from its own folder and write it back with its outputs"
    notebook = nbformat.read(path, 4)
    UnflaggedClient(notebook, timeout=900, kernel_name='python3', resources={'metadata': {'path': str(path.parent)}}).execute()
    nbformat.write(notebook, path)


if __name__ == '__main__':
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    paths = [Path(p) for p in sys.argv[1:]] or [p for p in sorted((ROOT/'nbs').rglob('*.ipynb')) if '.ipynb_checkpoints' not in p.parts]
    for path in sorted(paths, key=lambda p: p.stem == 'index'):
        start = time.time()
        execute(path)
        print(f'{path.name}: {time.time() - start:.0f} s', flush=True)
