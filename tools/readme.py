"""Make README.md from the stored outputs of nbs/index.ipynb.

    python tools/readme.py            # write README.md
    python tools/readme.py --check    # exit 1 if README.md is not what would be written

Cells flagged `hide` are left out, `echo: false` leaves out the code. A picture must be a file of results/, byte for byte, and becomes a link to it.
"""
import base64, re, sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
has = lambda cell, flag: re.search(rf'^#\|\s*{flag}\b', cell.source, re.M)


def linked(text: str) -> str:
    "Markdown of a notebook in nbs/ as it reads from the top folder"
    return re.sub(r'\]\((?!https?:|#|\.\./|mailto:)([^)]+\.ipynb)', r'](nbs/\1', text.replace('](../', ']('))


def picture(png: str) -> str:
    "A link to the file in results/ that holds this picture"
    data = base64.b64decode(png)
    for path in sorted((ROOT/'results').rglob('*.png')):
        if path.read_bytes() == data: return f'![]({path.relative_to(ROOT)})'
    sys.exit('readme: a picture in nbs/index.ipynb is no file of results/; execute the notebook again with tools/execute.py nbs/index.ipynb')


def shown(output) -> str:
    "One stored output as Markdown"
    if output.output_type == 'error': sys.exit('readme: nbs/index.ipynb stores an error; execute it again')
    data = output.get('data', {})
    if 'image/png' in data: return picture(data['image/png'])
    if 'text/markdown' in data: return linked(data['text/markdown'])
    return '\n'.join('    ' + line for line in (output.get('text') or data.get('text/plain', '')).rstrip().splitlines())


def readme() -> str:
    "The whole text"
    parts = ['<!-- made by tools/readme.py from nbs/index.ipynb: edit that -->']
    for cell in nbformat.read(ROOT/'nbs'/'index.ipynb', 4).cells:
        if cell.cell_type == 'markdown': parts.append(linked(cell.source))
        elif cell.cell_type == 'code' and not has(cell, 'hide'):
            code = re.sub(r'^#\|.*\n?', '', cell.source, flags=re.M).strip()
            if code and not has(cell, 'echo: false'): parts.append(f'```python\n{code}\n```')
            parts += [shown(o) for o in cell.outputs]
    return '\n\n'.join(p.strip('\n') for p in parts if p.strip()) + '\n'


if __name__ == '__main__':
    path, text = ROOT/'README.md', readme()
    if '--check' not in sys.argv: path.write_text(text)
    elif path.read_text() != text: sys.exit('readme: README.md is not what nbs/index.ipynb says; run make export')
