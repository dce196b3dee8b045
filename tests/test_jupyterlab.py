"A notebook in JupyterLab, in a real browser: every cell runs, and the figures are there."
import os, shutil, socket, subprocess, sys, time, urllib.request

import pytest

BROWSER = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync']


@pytest.fixture
def lab(checkout, tmp_path):
    "The address of a JupyterLab that serves a copy of the checkout"
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    folders = {f'JUPYTER_{k}_DIR': str(tmp_path/k) for k in ('CONFIG', 'RUNTIME')} | {f'JUPYTERLAB_{k}_DIR': str(tmp_path/k) for k in ('SETTINGS', 'WORKSPACES')}
    server = subprocess.Popen([sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root', '--ip=127.0.0.1', f'--port={port}', '--ServerApp.port_retries=0', '--IdentityProvider.token=',
        '--LabApp.expose_app_in_browser=True', '--LabApp.news_url=None', '--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate', f'--ServerApp.root_dir={checkout}'],
        env=os.environ | folders, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(240):
            try: urllib.request.urlopen(f'http://127.0.0.1:{port}/api/status').read(); break
            except OSError: time.sleep(.25)
        yield f'http://127.0.0.1:{port}/lab/tree/nbs'
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture
def page():
    "A page of a real browser"
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield browser.new_page(viewport={'width': 1400, 'height': 1000})
        browser.close()


def run_all(page, address):
    "Open a notebook, clear its outputs, run all cells"
    page.goto(f'{address}?reset')
    page.locator('.jp-NotebookPanel .jp-Cell').first.wait_for(timeout=60_000)
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


@needs_browser
@pytest.mark.parametrize('name', ['02_images', '04_training', '08_transfer', '09_cuda', '10_connectivity', '20_digits', 'index', 'tutorials/your_own_data'])
def test_a_person_steps_through(lab, page, name):
    run_all(page, f'{lab}/{name}.ipynb')
    found = counts(page)
    assert found['errors'] == []
    assert found['run'] == found['cells'] > 5
    assert found['pictures'] >= 1


@needs_browser
def test_a_person_plays_with_the_toy(lab, page):
    "Sliders move by the keyboard, a button is clicked, and the picture follows each time"
    run_all(page, f'{lab}/01_toy.ipynb')
    assert counts(page)['errors'] == [] and counts(page)['run'] == counts(page)['cells']
    widget = page.locator('.jp-OutputArea-output:has(.widget-slider)')
    picture, handles, values = widget.locator('img'), widget.locator('.noUi-handle'), widget.locator('.widget-readout')
    assert handles.count() == 5
    assert page.locator('.jp-OutputArea-output img').count() > 5                     # the other figures are there too
    page.wait_for_timeout(2000)                                                      # the picture of the last cell's moves has arrived
    source = lambda: picture.get_attribute('src')
    def follows(act):
        before = source()
        act()
        page.wait_for_function('([e, before]) => e.src !== before', arg=[picture.element_handle(), before], timeout=20_000)
    def press(slider):
        before = values.nth(slider).inner_text()
        handles.nth(slider).focus()
        page.keyboard.press('ArrowRight')
        page.wait_for_function('([e, before]) => e.innerText !== before', arg=[values.nth(slider).element_handle(), before])
    unmoved = source()
    press(0)                                                                         # A has no part in a drawing of permuted
    page.wait_for_timeout(2000)
    assert source() == unmoved
    for button, sliders in ('LTH', (0, 1)), ('naive', (2, 3)), ('dense', (0, 4)):
        follows(lambda: widget.locator('button', has_text=button).click())
        for slider in sliders: follows(lambda: press(slider))
    assert picture.evaluate('e => e.naturalWidth') > 300
    assert counts(page)['errors'] == []
