"""Run every notebook as a test and tests/, say how far it is, and end with 'N passed, N failed'.

    python tools/test.py                    # everything that needs nothing special
    python tools/test.py --all              # also what takes long: thirty kills, all notebooks in a browser, benchmarks
    python tools/test.py -k interruption    # only tests/, with pytest's arguments

With NO_SKIPS=1 a skipped test counts as failed: nothing may pass for want of a browser or of data.
"""
import os, re, subprocess, sys, tempfile
import xml.etree.ElementTree as xml
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
WORKERS = min(os.cpu_count(), 8)


def say(text): print(text, flush=True)


def notebooks(slow):
    "Passed and failed notebooks, by nbdev_test"
    paths = [p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts]
    names = {p.relative_to(ROOT).as_posix() for p in paths}
    say(f'1 of 2: {len(names)} notebooks, {WORKERS} at once')
    flags, done, text = ['--flags', 'slow'] if slow else [], [], ''
    command = [BIN/'nbdev_test', '--n_workers', str(WORKERS), '--do_print', *flags]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            text += line
            if found := re.match(r'- Completed (\S+\.ipynb)', line):
                done.append(Path(found[1]).relative_to(ROOT).as_posix())
                say(f'[{len(done):2}/{len(names)}] {done[-1]}')
            elif not line.startswith('Starting '): say(line.rstrip('\n'))
    listed = text.partition('Tests Failed On The Following Notebooks')[2]
    failed = {n for n in names if n not in done or re.search(rf'^\s*{re.escape(Path(n).name)}\s*$', listed, re.M)}
    if process.returncode and not failed: failed = {'nbdev_test itself'}
    return len(names) - len(names & failed), len(failed)


def suite(slow, args):
    "Passed and failed tests of tests/, by pytest"
    say(f"{'' if args else '2 of 2: '}tests/, {WORKERS} at once")
    spread = ['-n', str(WORKERS), '--dist', 'loadfile', '--no-loadscope-reorder'] if not args else []
    with tempfile.NamedTemporaryFile(suffix='.xml') as f:
        command = [BIN/'python', '-m', 'pytest', '-v', '-rs', '--durations=10', '-p', 'no:cacheprovider',
                   f'--junitxml={f.name}']
        code = subprocess.run([*command, *spread, *(['-m', ''] if slow else []), *args], cwd=ROOT).returncode
        if not Path(f.name).stat().st_size: return 0, 1
        found = next(xml.parse(f.name).iter('testsuite'))
    total, failures, errors, skipped = (int(found.get(k)) for k in ('tests', 'failures', 'errors', 'skipped'))
    bad = failures + errors
    if code and not bad: bad = 1
    strict = skipped if os.environ.get('NO_SKIPS') else 0
    return total - min(total, bad) - skipped, bad + strict


if __name__ == '__main__':
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    everything, rest = '--all' in sys.argv, [a for a in sys.argv[1:] if a != '--all']
    passed, failed = (0, 0) if rest else notebooks(everything)
    more = suite(everything, rest)
    passed, failed = passed + more[0], failed + more[1]
    say(f'{passed} passed, {failed} failed')
    sys.exit(failed > 0)
