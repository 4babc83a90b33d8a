"""The files of bags: where they are, and what to do with those that cannot be read as they lie."""

from __future__ import annotations

from pathlib import Path

import yaml

from wm_datasets.formats.base import CorruptInputError, FormatError

FILES = (".mcap", ".db3")
PACKED = tuple(f"{suffix}.zstd" for suffix in FILES)
METADATA = "metadata.yaml"
_MCAP_MAGIC = b"\x89MCAP0\r\n"
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")  # of a transaction that was not finished
_MERGE = 'sqlite3 {file} "SELECT count(*) FROM messages"'  # the last to close it merges


def find_bags(source: Path) -> list[Path]:
    """Bags in `source`: itself, or folders with metadata.yaml and loose files below it."""
    if source.is_file():
        if not source.name.endswith(FILES + PACKED):
            raise FormatError(
                f"source: got {source}, expected a bag: a file of {' or '.join(FILES)}, or a "
                "folder."
            )
        return [source]
    if (source / METADATA).exists():
        return [source]
    whole = [path.parent for path in source.rglob(METADATA)]
    loose = [
        p for p in source.rglob("*") if p.name.endswith(FILES + PACKED) and p.parent not in whole
    ]
    if not whole and not loose:
        raise FormatError(f"{source}: no bag in it ({', '.join(FILES)} or {METADATA}).")
    return sorted([*whole, *loose])


def check_files(bag: Path) -> None:
    """CorruptInputError where reading the bag's files would miss messages that they hold."""
    if bag.name.endswith(PACKED) and bag.is_file():
        raise CorruptInputError(
            bag,
            f"it is compressed as a whole. Run zstd -d {bag}, then import {bag.with_suffix('')} "
            f"(or import its folder, with the bag's {METADATA}).",
        )
    for file in files_of(bag, ".db3"):
        log, journal = (file.with_name(file.name + end) for end in ("-wal", "-journal"))
        if log.is_file() and log.stat().st_size:
            left = f"{log.name}, messages that are not merged into {file.name}"
        elif journal.is_file() and _begins(journal, _JOURNAL_MAGIC):
            left = f"{journal.name}, a transaction that was not finished"
        else:
            continue
        raise CorruptInputError(
            bag,
            f"beside it lies {left}. End its recorder, run {_MERGE.format(file=file)} and import "
            "it again.",
        )


def unlisted(bag: Path) -> list[str]:
    """Files in a bag's folder that its metadata.yaml does not name."""
    if not bag.is_dir():
        return []
    listed = _listed(bag)
    there = sorted(p.name for p in bag.iterdir() if p.name.endswith(FILES + PACKED))
    return [name for name in there if name not in listed] if listed else []


def remedy(bag: Path, what: str) -> str:
    """What helps where a bag cannot be opened, for the reason `what`, or ""."""
    if bag.is_dir():
        listed = _listed(bag)
        if not listed:
            return f"Run ros2 bag reindex {bag}, which writes {METADATA} again."
        missing = [name for name in listed if not (bag / name).exists()]
        if missing and (others := unlisted(bag)):
            return (
                f"{METADATA} names {', '.join(missing)}, the folder holds {', '.join(others)}. "
                f"Give the file that name, or import {bag / others[0]} itself."
            )
        if missing:
            return f"Bring {', '.join(missing)} into {bag}."
    for file in files_of(bag, ".mcap"):
        if not _ends(file, _MCAP_MAGIC):
            new = file.with_name(f"{file.stem}_recovered.mcap")
            return (
                f"{file.name} is cut short. Run mcap recover {file} -o {new} (the command line "
                f"tool of MCAP), then import {new}."
            )
    damaged = "malformed" in what or "not a database" in what
    if damaged and (files := files_of(bag, ".db3")):
        file = files[0]
        new = file.with_name(f"{file.stem}_recovered.db3")
        return f"Run sqlite3 {file} .recover | sqlite3 {new}, then import {new}."
    return ""


def files_of(bag: Path, suffix: str) -> list[Path]:
    """Return the files of a bag that end so."""
    if bag.is_file():
        return [bag] if bag.suffix == suffix else []
    return sorted(bag.glob(f"*{suffix}"))


def _listed(folder: Path) -> list[str]:
    """Names of a bag's files by its metadata.yaml; none where that cannot be read."""
    try:
        about = yaml.safe_load((folder / METADATA).read_text())["rosbag2_bagfile_information"]
        return [Path(str(path)).name for path in about["relative_file_paths"]]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError):
        return []


def _begins(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _ends(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - len(magic), 0))
        return file.read() == magic
