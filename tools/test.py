"""Run every notebook as a test and tests/, and end with 'N passed, N failed'.

    python tools/test.py                 # all
    python tools/test.py -k interruption # only tests/, with pytest's arguments

With NO_SKIPS=1 a skipped test counts as failed: nothing may pass for want of a browser or of data.
"""
import os, re, subprocess, sys, tempfile
import xml.etree.ElementTree as xml
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent


def notebooks():
    "Passed and failed notebooks, by nbdev_test"
    names = {p.relative_to(ROOT).as_posix() for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts}
    command = [BIN/'nbdev_test', '--n_workers', '2', '--do_print', '--timing']
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        text = ''.join(print(line, end='', flush=True) or line for line in process.stdout)
    done = {Path(m).relative_to(ROOT).as_posix() for m in re.findall(r'^- Completed (\S+\.ipynb)', text, re.M)}
    listed = text.partition('Tests Failed On The Following Notebooks')[2]
    failed = {n for n in names if n not in done or re.search(rf'^\s*{re.escape(Path(n).name)}\s*$', listed, re.M)}
    if process.returncode and not failed: failed = {'nbdev_test itself'}
    return len(names) - len(names & failed), len(failed)


def suite(args):
    "Passed and failed tests of tests/, by pytest"
    with tempfile.NamedTemporaryFile(suffix='.xml') as f:
        code = subprocess.run([BIN/'python', '-m', 'pytest', '-q', '-rs', '--durations=5', '-p', 'no:cacheprovider', f'--junitxml={f.name}', 'tests', *args], cwd=ROOT).returncode
        written = Path(f.name).stat().st_size > 0
        counts = [int(s.get(k)) for s in [next(xml.parse(f.name).iter('testsuite'))] for k in ('tests', 'failures', 'errors', 'skipped')] if written else [0, 0, 0, 0]
    if not written: return 0, 1
    total, bad, skipped = counts[0], counts[1] + counts[2], counts[3]
    if code and not bad: bad = 1
    strict = skipped if os.environ.get('NO_SKIPS') else 0
    return total - min(total, bad) - skipped, bad + strict


if __name__ == '__main__':
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    passed, failed = (0, 0) if sys.argv[1:] else notebooks()
    more = suite(sys.argv[1:])
    passed, failed = passed + more[0], failed + more[1]
    print(f'{passed} passed, {failed} failed', flush=True)
    sys.exit(failed > 0)
