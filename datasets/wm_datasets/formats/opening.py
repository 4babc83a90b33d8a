"""Opening a source or an exporter with a person's options, none of which is passed over."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

from wm_datasets.formats.base import Exporter, Importer, Options
from wm_datasets.formats.flipped import Flipped
from wm_datasets.formats.resized import Resized
from wm_datasets.log.reader import LogReader

IMAGES = frozenset({"flip", "crop", "size"})  # of any source that has images


def load_format(name: str) -> ModuleType:
    """Return the module of a format, whose `Import` and `Export` are its two ways."""
    return import_module(f"wm_datasets.formats.{name}")


def open_source(name: str, source: Path, options: Options) -> Importer:
    """Open a source of a format: images are turned, cropped and resized as the options say.

    FormatError where an option is given that the format does not use.
    """
    kind = load_format(name).Import
    options.refuse_others(kind.uses | IMAGES, f"the import of {name}")
    plain = replace(options, flip=False, crop=None, size=None)
    opened: Importer = kind(source, plain)
    try:
        if options.flip:
            opened = Flipped(opened)
        if options.crop is not None or options.size is not None:
            opened = Resized(opened, options.size, options.crop)
    except BaseException:
        opened.close()
        raise
    return opened


def open_exporter(name: str, reader: LogReader, options: Options) -> Exporter:
    """Return an exporter of a log; FormatError where an option is given that it does not use."""
    kind = load_format(name).Export
    options.refuse_others(kind.uses, f"the export to {name}")
    exporter: Exporter = kind(reader, options)
    return exporter
