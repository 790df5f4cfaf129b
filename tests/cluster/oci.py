"""Images as one OCI archive, which a container runtime imports."""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from tests.cluster.images import Image

_CONTENT = "application/vnd.oci.image"


def write(images: Iterable[Image], file: IO[bytes]) -> None:
    """One archive of them all."""
    with tarfile.open(fileobj=file, mode="w|") as tar:
        _Archive(tar).write(images)


class _Archive:
    """Writes blobs to ``tar``, each once."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._layers: dict[Path, dict[str, Any]] = {}

    def write(self, images: Iterable[Image]) -> None:
        """All of them, and the index that names them."""
        entries = [self._image(image) for image in images]
        self._member("index.json", json.dumps({"schemaVersion": 2, "manifests": entries}).encode())
        self._member("oci-layout", b'{"imageLayoutVersion": "1.0.0"}')

    def _image(self, image: Image) -> dict[str, Any]:
        layers = [self._layer(path) for path in image.layers]
        config = {
            "architecture": _architecture(),
            "os": "linux",
            "config": image.config,
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
        }
        manifest = {
            "schemaVersion": 2,
            "config": self._blob(f"{_CONTENT}.config.v1+json", json.dumps(config).encode()),
            "layers": layers,
        }
        entry = self._blob(f"{_CONTENT}.manifest.v1+json", json.dumps(manifest).encode())
        return entry | {"annotations": {"io.containerd.image.name": image.reference}}

    def _layer(self, path: Path) -> dict[str, Any]:
        if path not in self._layers:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                file.seek(0)
                entry = tarfile.TarInfo(f"blobs/sha256/{digest}")
                entry.size = path.stat().st_size
                self._tar.addfile(entry, file)
            self._layers[path] = _described(f"{_CONTENT}.layer.v1.tar", digest, entry.size)
        return self._layers[path]

    def _blob(self, kind: str, content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        self._member(f"blobs/sha256/{digest}", content)
        return _described(kind, digest, len(content))

    def _member(self, name: str, content: bytes) -> None:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        self._tar.addfile(entry, io.BytesIO(content))


def _described(kind: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": size}


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
