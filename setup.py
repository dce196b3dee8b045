"""Everything that setuptools needs to know stands in settings.ini, where nbdev reads it too."""
import shlex
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

config = ConfigParser(delimiters=['='])
config.read('settings.ini', encoding='utf-8')
cfg = config['DEFAULT']
words = lambda key: shlex.split(cfg.get(key, ''))

setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], keywords=cfg['keywords'],
    author=cfg['author'], author_email=cfg['author_email'], url=cfg['git_url'], license='Apache-2.0',
    long_description=Path('README.md').read_text(encoding='utf-8'), long_description_content_type='text/markdown',
    packages=find_packages(include=['sparse_lth', 'sparse_lth.*']), include_package_data=True, package_data={cfg['lib_name']: ['paper/*.csv']}, zip_safe=False,
    python_requires='>=' + cfg['min_python'], install_requires=words('requirements'), extras_require={'dev': words('dev_requirements')},
    entry_points={'console_scripts': words('console_scripts'), 'nbdev': [f"{cfg['lib_path']}={cfg['lib_path']}._modidx:d"]},
    options={'editable_wheel': {'mode': 'compat'}},   # a plain .pth: also a Python started beside the clone finds the package
    classifiers=['Development Status :: 3 - Alpha', 'Intended Audience :: Science/Research', 'Programming Language :: Python :: 3'],
)
