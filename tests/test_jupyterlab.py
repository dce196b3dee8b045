"A notebook in JupyterLab, in a real browser: every cell runs, and the figures are there."
import os, shutil, socket, subprocess, sys, urllib.request

import pytest

from conftest import copy_checkout
from processes import BOUND, wait_until

BROWSER = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync']


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    "The address of a JupyterLab that serves a copy of the checkout"
    folder = tmp_path_factory.mktemp('lab')
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    folders = {f'JUPYTER_{k}_DIR': str(folder/k) for k in ('CONFIG', 'RUNTIME')}
    folders |= {f'JUPYTERLAB_{k}_DIR': str(folder/k) for k in ('SETTINGS', 'WORKSPACES')}
    command = [sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root', '--ip=127.0.0.1', f'--port={port}',
               '--ServerApp.port_retries=0', '--IdentityProvider.token=', '--LabApp.expose_app_in_browser=True',
               '--LabApp.news_url=None', '--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate',
               f"--ServerApp.root_dir={copy_checkout(folder/'copy')}"]
    with open(folder/'log', 'w') as log:
        server = subprocess.Popen(command, env=os.environ | folders, stdout=log, stderr=log)
    try:
        wait_until(lambda: answers(port) or server.poll() is not None, 'JupyterLab answers')
        assert server.poll() is None, (folder/'log').read_text()
        yield f'http://127.0.0.1:{port}/lab/tree/nbs'
    finally:
        server.terminate()
        server.wait(BOUND)


def answers(port):
    "Whether a server is up"
    try: return urllib.request.urlopen(f'http://127.0.0.1:{port}/api/status').read()
    except OSError: return None


@pytest.fixture
def page():
    "A page of a real browser"
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=BROWSER, args=FLAGS)
        page = browser.new_page(viewport={'width': 1400, 'height': 1000})
        page.set_default_timeout(1000 * BOUND)
        yield page
        browser.close()


def run_all(page, address):
    "Open a notebook, clear its outputs, run all cells"
    page.goto(f'{address}?reset')
    page.locator('.jp-NotebookPanel .jp-Cell').first.wait_for()
    page.evaluate('''async () => {
        const app = window.jupyterapp; await app.restored
        const panel = app.shell.currentWidget; await panel.context.ready; await panel.sessionContext.ready
        await panel.sessionContext.session.kernel.info
        await app.commands.execute('notebook:clear-all-cell-outputs')
        await app.commands.execute('notebook:run-all-cells') }''')


def counts(page):
    "What the open notebook has"
    return page.evaluate('''() => {
        const cells = window.jupyterapp.shell.currentWidget.content.model.sharedModel.cells.filter(c => c.cell_type === 'code' && c.source.trim())
        const outputs = cells.flatMap(c => c.outputs)
        return { run: cells.filter(c => c.execution_count > 0).length, cells: cells.length,
                 errors: outputs.filter(o => o.output_type === 'error').map(o => o.ename + ': ' + o.evalue),
                 pictures: outputs.filter(o => o.data && o.data['image/png']).length } }''')


needs_browser = pytest.mark.skipif(not BROWSER, reason='no Chromium or Chrome on the PATH')


def settle(page):
    "Wait until the kernel has answered all, twice, since a slider sends again when it was answered, and the page is drawn"
    page.evaluate('''async () => {
        const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel
        for (const _ of [1, 2]) await kernel.requestExecute({ code: '', store_history: false }).done
        for (const _ of [1, 2]) await new Promise(drawn => requestAnimationFrame(drawn)) }''')


def check_steps_through(lab, page, name):
    "All cells of a notebook run, and there are pictures"
    run_all(page, f'{lab}/{name}.ipynb')
    found = counts(page)
    assert found['errors'] == []
    assert found['run'] == found['cells'] > 5
    assert found['pictures'] >= 1


@needs_browser
def test_a_person_steps_through_a_notebook(lab, page):
    check_steps_through(lab, page, '08_transfer')


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize('name', ['02_images', '04_training', '09_cuda', '10_connectivity', '20_digits', 'index',
                                  'tutorials/your_own_data'])
def test_a_person_steps_through_the_others(lab, page, name):
    check_steps_through(lab, page, name)


@needs_browser
def test_a_person_plays_with_the_toy(lab, page):
    "Sliders move by the keyboard, a button is clicked, and the picture follows each time"
    run_all(page, f'{lab}/01_toy.ipynb')
    assert counts(page)['errors'] == [] and counts(page)['run'] == counts(page)['cells']
    widget = page.locator('.jp-OutputArea-output:has(.widget-slider)')
    picture, handles, values = widget.locator('img'), widget.locator('.noUi-handle'), widget.locator('.widget-readout')
    assert handles.count() == 5
    assert page.locator('.jp-OutputArea-output img').count() > 5                     # the other figures are there too
    source = lambda: picture.get_attribute('src')

    def follows(act):
        settle(page)
        before = source()
        act()
        page.wait_for_function('([e, before]) => e.src !== before', arg=[picture.element_handle(), before])

    def press(slider):
        before = values.nth(slider).inner_text()
        handles.nth(slider).focus()
        page.keyboard.press('ArrowRight')
        readout = values.nth(slider).element_handle()
        page.wait_for_function('([e, before]) => e.innerText !== before', arg=[readout, before])

    settle(page)  # the picture of the last cell's moves has arrived
    unmoved = source()
    press(0)  # A has no part in a drawing of permuted
    settle(page)
    assert source() == unmoved
    for button, sliders in ('LTH', (0, 1)), ('naive', (2, 3)), ('dense', (0, 4)):
        follows(lambda: widget.locator('button', has_text=button).click())
        for slider in sliders: follows(lambda: press(slider))
    assert picture.evaluate('e => e.naturalWidth') > 300
    assert counts(page)['errors'] == []
