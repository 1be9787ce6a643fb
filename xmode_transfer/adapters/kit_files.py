"""A customer's kit as a directory, there whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

from xmode_transfer.domain.errors import ConfigError


class KitDirectory:
    """Implements ``services.onboard.KitPlace``."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()

    def check_free(self) -> None:
        """Raises ConfigError when something lies there already."""
        try:
            taken = self._path.exists() and (not self._path.is_dir() or any(self._path.iterdir()))
        except OSError as error:
            raise self._unwritable(error) from error
        if taken:
            raise ConfigError(
                f"{self._path} is there already and not empty; nothing in it is overwritten",
                hint="give a directory of its own with --out",
            )

    def write(self, files: Mapping[str, str], programs: Collection[str]) -> str:
        """Answers the directory. Raises ConfigError when it cannot be written; then nothing is left."""
        self.check_free()
        partial: Path | None = None
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=f".{self._path.name}.", dir=self._path.parent))
            umask = os.umask(0)
            os.umask(umask)
            for name, text in files.items():
                file = partial / name
                file.write_text(text, encoding="utf-8", newline="\n")
                file.chmod((0o777 if name in programs else 0o666) & ~umask)
            partial.chmod(0o777 & ~umask)
            partial.rename(self._path)
        except OSError as error:
            if partial is not None:
                shutil.rmtree(partial, ignore_errors=True)
            raise self._unwritable(error) from error
        return str(self._path)

    def remove(self, files: Collection[str]) -> None:
        """Takes away what ``write`` made, when the customer was not kept."""
        for name in files:
            (self._path / name).unlink(missing_ok=True)
        self._path.rmdir()

    def _unwritable(self, error: OSError) -> ConfigError:
        return ConfigError(
            f"the kit cannot be written to {self._path}: {error.strerror or error}",
            hint="give another directory with --out",
        )
