"""Make README.md from the stored outputs of nbs/index.ipynb.

    python tools/readme.py            # write README.md, and the pictures that its cells draw
    python tools/readme.py --check    # exit 1 if anything is not what would be written

Cells flagged `hide` are left out, `echo: false` leaves out the code. A picture of a cell with `label: NAME` is results/NAME.png; any other must be a file of
results/, byte for byte. Both become links, with `fig-alt` as text for those who can't see them.
"""
import base64, re, sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
has = lambda cell, flag: re.search(rf'^#\|\s*{flag}\b', cell.source, re.M)


def linked(text: str) -> str:
    "Markdown of a notebook in nbs/ as it reads from the top folder"
    return re.sub(r'\]\((?!https?:|#|\.\./|mailto:)([^)]+\.ipynb)', r'](nbs/\1', text.replace('](../', ']('))


def option(cell, name: str) -> str:
    "The value of an option such as `#| label: toy`, or nothing"
    found = re.search(rf'^#\|\s*{name}:\s*"?(.*?)"?\s*$', cell.source, re.M)
    return found[1] if found else ''


def picture(cell, png: str, drawn: dict) -> str:
    "A link to the file in results/ that holds this picture"
    data, alt = base64.b64decode(png), option(cell, 'fig-alt')
    if label := option(cell, 'label'):
        drawn[ROOT/'results'/f'{label}.png'] = data
        return f'![{alt}](results/{label}.png)'
    for path in sorted((ROOT/'results').rglob('*.png')):
        if path.read_bytes() == data: return f'![{alt}]({path.relative_to(ROOT)})'
    sys.exit('readme: a picture in nbs/index.ipynb is no file of results/; execute the notebook again with tools/execute.py nbs/index.ipynb')


def shown(cell, output, drawn: dict) -> str:
    "One stored output as Markdown"
    if output.output_type == 'error': sys.exit('readme: nbs/index.ipynb stores an error; execute it again')
    data = output.get('data', {})
    if 'image/png' in data: return picture(cell, data['image/png'], drawn)
    if 'text/markdown' in data: return linked(data['text/markdown'])
    return '\n'.join('    ' + line for line in (output.get('text') or data.get('text/plain', '')).rstrip().splitlines())


def readme() -> tuple[str, dict]:
    "The whole text, and the pictures drawn for it: {path: bytes}"
    drawn, parts = {}, ['<!-- made by tools/readme.py from nbs/index.ipynb: edit that -->']
    for cell in nbformat.read(ROOT/'nbs'/'index.ipynb', 4).cells:
        if cell.cell_type == 'markdown': parts.append(linked(cell.source))
        elif cell.cell_type == 'code' and not has(cell, 'hide'):
            code = re.sub(r'^#\|.*\n?', '', cell.source, flags=re.M).strip()
            if code and not has(cell, 'echo: false'): parts.append(f'```python\n{code}\n```')
            parts += [shown(cell, o, drawn) for o in cell.outputs]
    return '\n\n'.join(p.strip('\n') for p in parts if p.strip()) + '\n', drawn


if __name__ == '__main__':
    text, files = readme()
    files[ROOT/'README.md'] = text.encode()
    for path, content in files.items():
        if '--check' not in sys.argv: path.write_bytes(content)
        elif not path.is_file() or path.read_bytes() != content: sys.exit(f'readme: {path.name} is not what nbs/index.ipynb says; run make export')
