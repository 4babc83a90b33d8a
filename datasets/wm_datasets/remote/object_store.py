"""Objects under a URL (s3://bucket/folder, file:///folder, ...) through zarr's own store layer.

Credentials and endpoint come from the standard environment variables alone: AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import re
import time
from collections.abc import Coroutine, Iterable, Mapping
from datetime import timedelta
from typing import Any, TypeVar

from wm_datasets.errors import LogError

T = TypeVar("T")

_URL = re.compile(r"[a-z][a-z0-9+.-]*://.+")
RETRY_S = 60.0  # a store that does not answer is asked again for so long
_AT_ONCE = 16  # requests under way


def is_url(place: object) -> bool:
    """Is this the URL of a store, not a path?"""
    return isinstance(place, str) and _URL.fullmatch(place) is not None


class ObjectStore:
    """Reads and writes whole objects; several at once. Keys are relative to the URL."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._store, self._prototype = _open(self.url)

    def read(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Return the objects that exist, by key."""
        contents = self._all({key: self._read(key) for key in keys})
        return {key: data for key, data in contents.items() if data is not None}

    def read_one(self, key: str) -> bytes | None:
        """Return one object; None when it does not exist."""
        return self.read([key]).get(key)

    def write(self, objects: Mapping[str, bytes]) -> None:
        """Write objects whole, in any order; all are there when this returns."""
        self._all({key: self._write(key, data) for key, data in objects.items()})

    async def _read(self, key: str) -> bytes | None:
        buffer = await self._store.get(key, self._prototype)
        return None if buffer is None else bytes(buffer.to_bytes())

    async def _write(self, key: str, data: bytes) -> None:
        await self._store.set(key, self._prototype.buffer.from_bytes(data))

    def _all(self, work: Mapping[str, Coroutine[Any, Any, T]]) -> dict[str, T]:
        async def together() -> list[T]:
            limit = asyncio.Semaphore(_AT_ONCE)

            async def one(task: Coroutine[Any, Any, T]) -> T:
                async with limit:
                    return await task

            return await asyncio.gather(*(one(task) for task in work.values()))

        try:
            return dict(zip(work, asyncio.run(together())))
        except Exception as error:  # each store has exceptions of its own
            raise LogError(
                f"{self.url}: {_first_line(error)}. Check the address, AWS_ENDPOINT_URL, "
                "AWS_REGION and the credentials in AWS_*."
            ) from error


def _first_line(error: Exception) -> str:
    """Return what an error of obstore says, without its dump of internal values."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _await_threads() -> None:
    """Let obstore's threads drop their Python objects, which they do just after an answer: in a
    Python that is ending it aborts the process (137 of 600 small programs did; 0 of 480 so)."""
    time.sleep(0.1)


def _open(url: str) -> tuple[Any, Any]:
    """Open zarr's store of a URL, and the kind of buffer that it takes."""
    try:
        from obstore.store import from_url
        from zarr.core.buffer import default_buffer_prototype
        from zarr.storage import ObjectStore as ZarrStore
    except ImportError:
        raise LogError(
            f"{url}: reading and writing object stores needs zarr 3 and obstore (Python 3.11 or "
            "later). Run pip install .[s3]"
        ) from None
    atexit.unregister(_await_threads)  # once, however many stores are open
    atexit.register(_await_threads)
    options: dict[str, Any] = {
        "retry_config": {"max_retries": 10, "retry_timeout": timedelta(seconds=RETRY_S)}
    }
    if url.startswith("s3"):
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        if endpoint:
            options["endpoint"] = endpoint
            options["client_options"] = {"allow_http": endpoint.startswith("http://")}
    try:
        return ZarrStore(from_url(url, **options)), default_buffer_prototype()
    except Exception as error:
        raise LogError(
            f"store: got {url} ({_first_line(error)}), expected s3://BUCKET/FOLDER."
        ) from error
