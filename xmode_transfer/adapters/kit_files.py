"""A customer's kit as a directory, there whole or not at all. It has the external ID in it, so only its
owner may read it, whatever the umask."""

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
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            mode = self._path.stat().st_mode & 0o7777 if self._path.exists() else 0o700
            partial = Path(tempfile.mkdtemp(prefix=f".{self._path.name}.", dir=self._path.parent))
            for name, text in files.items():
                file = partial / name
                file.write_text(text, encoding="utf-8", newline="\n")
                file.chmod(0o700 if name in programs else 0o600)
            partial.chmod(mode)
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
