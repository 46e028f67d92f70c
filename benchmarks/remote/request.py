"""The bytes that are sent to the target: program, one line of JSON, tar of all files.

File names travel in the JSON and the tar, never in a command line of a shell.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from kdedge.benchmarks.remote.wheel import write_wheel
from kdedge.benchmarks.sources import bundle_name, differing_parts

from kdedge.errors import UsageError
from kdedge.runtime.bundle import Bundle
from kdedge.runtime.layout import UNLISTED

ON_TARGET = Path(__file__).with_name("on_target.py")


@dataclass(frozen=True)
class Request:
    """A bench for another machine to run.

    Attributes:
        bundles: Folders of the bundles.
        words: Options of `kdedge bench` as words of a command line, without paths.
        data: File with texts; None: those of the bundle.
        against: An earlier report to compare with, or None.
        wheels: Folder with wheels for the target; None: pip downloads them there.
        installed: Whether the target's Python has kdedge already.
    """

    bundles: Sequence[Path]
    words: Sequence[str]
    data: Path | None = None
    against: Path | None = None
    wheels: Path | None = None
    installed: bool = False

    def __post_init__(self) -> None:
        if self.wheels is not None:
            wheel_files(self.wheels)  # Raises before anything is sent.

    def arguments(self) -> list[str]:
        """Return the arguments of `kdedge bench` in the folder `bundles` on the target."""
        arguments = [f"./{name}" for name in self._names()]
        if self.data is not None:
            arguments += ["--data", f"../data/{self.data.name}"]
        if self.against is not None:
            arguments += ["--against", f"../against/{self.against.name}"]
        return [*arguments, *self.words]

    def send(self, stream: IO[bytes]) -> None:
        """Write everything to the target's stdin.

        Raises:
            MachineError: If kdedge cannot be made into a wheel.
        """
        program = ON_TARGET.read_bytes()
        document = {
            "arguments": self.arguments(),
            "installed": self.installed,
            "wheels": self.wheels is not None,
        }
        stream.write(b"%d\n%s" % (len(program), program))
        stream.write(json.dumps(document).encode("ascii") + b"\n")
        # GNU's format keeps names that are no valid UTF-8.
        with tarfile.open(fileobj=stream, mode="w|", format=tarfile.GNU_FORMAT) as archive:
            self._add_files(archive)
        stream.flush()

    def _add_files(self, archive: tarfile.TarFile) -> None:
        for name, folder in zip(self._names(), self.bundles, strict=True):
            for file in (*UNLISTED, *Bundle.open(folder).manifest.files):
                if (folder / file).is_file():
                    archive.add(folder / file, f"bundles/{name}/{file}")
        if self.data is not None:
            archive.add(self.data.resolve(), f"data/{self.data.name}")
        if self.against is not None:
            archive.add(self.against.resolve(), f"against/{self.against.name}")
        if self.installed:
            return
        if self.wheels is not None:
            for wheel in wheel_files(self.wheels):
                archive.add(wheel.resolve(), f"wheels/{wheel.name}")
        with TemporaryDirectory(prefix="kdedge-wheel-") as made:
            own = write_wheel(Path(made))
            archive.add(own, f"kdedge/{own.name}")

    def _names(self) -> list[str]:
        """Return a path on the target for each bundle: its name, in a folder that tells it apart.

        So the bench there names subjects and settings as a bench here does.
        """
        folders = [folder.resolve() for folder in self.bundles]
        if len(folders) == 1:
            return [bundle_name(folders[0])]
        names = []
        for part, folder in zip(differing_parts(folders), folders, strict=True):
            names.append(f"{part.strip('/')}/{bundle_name(folder)}")
        return names


def wheel_files(folder: Path) -> list[Path]:
    """Return the wheels in a folder. Raises UsageError if there are none."""
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise UsageError(
            "there are no wheels in this folder",
            str(folder),
            "fill it with `pip download --only-binary=:all: --platform PLATFORM --python-version"
            f" VERSION --dest {folder} numpy onnxruntime tokenizers click rich`",
        )
    return wheels
