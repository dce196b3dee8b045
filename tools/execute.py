"""Execute notebooks and store their outputs; cells flagged `slow`, `cuda` or `eval: false` keep what they had.

Pictures are stored in 128 colours, which a chart does not need more than and which makes them a fraction as large; files of results/ stay as they are.
Where a widget comes with a picture, the picture is stored: a page without a kernel can't move a slider.

    python tools/execute.py                    # all of them, in order
    python tools/execute.py nbs/04_training.ipynb nbs/index.ipynb
"""
import base64, io, os, re, sys, time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SKIP = re.compile(r'^#\|\s*(slow|cuda|eval:\s*false)\b', re.M)


class UnflaggedClient(NotebookClient):
    "A notebook client that passes over flagged cells"
    async def async_execute_cell(self, cell, cell_index, **kwargs):
        if cell.cell_type == 'code' and SKIP.search(cell.source): return cell
        return await super().async_execute_cell(cell, cell_index, **kwargs)


def smaller(png: str, published: set) -> str:
    "A picture in 128 colours, unless it is a file of results/ or would grow"
    data = base64.b64decode(png)
    if data in published: return png
    Image.open(io.BytesIO(data)).convert('RGB').quantize(128, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE).save(out := io.BytesIO(), 'png', optimize=True)
    return min(png, base64.b64encode(out.getvalue()).decode(), key=len)


def store(notebook):
    "What is kept of the outputs"
    published = {p.read_bytes() for p in (ROOT/'results').rglob('*.png')}
    for output in (o for c in notebook.cells if c.cell_type == 'code' for o in c.outputs if 'image/png' in o.get('data', {})):
        output.data['image/png'] = smaller(output.data['image/png'], published)
        output.data.pop('application/vnd.jupyter.widget-view+json', None)


def execute(path: Path):
    "Run one notebook from its own folder and write it back with its outputs"
    notebook = nbformat.read(path, 4)
    UnflaggedClient(notebook, timeout=900, kernel_name='python3', store_widget_state=False, resources={'metadata': {'path': str(path.parent)}}).execute()
    store(notebook)
    nbformat.write(notebook, path)


if __name__ == '__main__':
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    paths = [Path(p) for p in sys.argv[1:]] or [p for p in sorted((ROOT/'nbs').rglob('*.ipynb')) if '.ipynb_checkpoints' not in p.parts]
    for path in sorted(paths, key=lambda p: p.stem == 'index'):
        start = time.time()
        execute(path)
        print(f'{path.name}: {time.time() - start:.0f} s', flush=True)
