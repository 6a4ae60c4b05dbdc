"""Addresses in object stores (gs://..., s3://...) as paths.

A text enters; a pathlib.Path leaves, or a `Uri` where the text is an address, which
takes the calls of pathlib that this package makes. fsspec does the work, with the
package that knows the scheme (gcsfs, s3fs, ...). config makes such paths of --data_dir
and --features_dir; all else that reads or writes there takes either kind. There are no
links, locks or renames: a file is sent as a whole, and is there when all of it is.
"""

import contextlib
import errno
import os
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple

_SCHEME = re.compile(r"(?P<name>[a-z][a-z0-9+.-]+)://")


class Stat(NamedTuple):
    """What is known of a file.

    Attributes:
      st_size: its length in bytes.
    """

    st_size: int


class Uri(pathlib.PurePosixPath):
    """An address, such as gs://bucket/folder/file.

    Its methods are those of pathlib.Path of the same name. What fails is an OSError
    with a text and this address, whatever the package behind it raises.
    """

    def __str__(self) -> str:
        # pathlib makes one stroke of two.
        return super().__str__().replace(":/", "://", 1)

    def __fspath__(self) -> str:
        return str(self)

    @property
    def fs(self) -> Any:
        """The fsspec file system that it is in.

        Raises:
          ValueError: nothing knows the scheme.
          ImportError: a package is missing that does; the message names it.
        """
        import fsspec

        return fsspec.filesystem(self.parts[0].removesuffix(":"))

    def absolute(self) -> "Uri":
        """Itself."""
        return self

    def exists(self) -> bool:
        """Whether there is a file or folder."""
        with self._failing():
            return self.fs.exists(str(self))

    def is_dir(self) -> bool:
        """Whether it is a folder: something is below it."""
        with self._failing():
            return self.fs.isdir(str(self))

    def is_file(self) -> bool:
        """Whether it is a file."""
        with self._failing():
            return self.fs.isfile(str(self))

    def stat(self) -> Stat:
        """The length of a file."""
        with self._failing():
            return Stat(self.fs.info(str(self))["size"])

    def listed(self) -> list[tuple["Uri", bool]]:
        """What is in a folder, by name, and whether each is a folder."""
        with self._failing():
            found = self.fs.ls(str(self), detail=True)
        names = {
            entry["name"].rstrip("/").rpartition("/")[2]: entry["type"] == "directory"
            for entry in found
            # Some list a marker of the folder itself.
            if not str(self).endswith(entry["name"].rstrip("/"))
        }
        return [(self / name, is_folder) for name, is_folder in sorted(names.items())]

    def walk(
        self, on_error: Callable[[OSError], Any]
    ) -> Iterator[tuple["Uri", list[str], list[str]]]:
        """As os.walk from the top: folders that are taken out are not gone into."""
        try:
            found = self.listed()
        except OSError as error:
            on_error(error)
            return
        subs = [path.name for path, is_folder in found if is_folder]
        yield self, subs, [path.name for path, is_folder in found if not is_folder]
        for sub in subs:
            yield from (self / sub).walk(on_error)

    @contextlib.contextmanager
    def open(
        self, mode: str = "r", newline: str | None = None, encoding: str | None = None
    ) -> Iterator[IO[Any]]:
        """A file to read or to write; it is there when it is closed."""
        text = {} if "b" in mode else {"newline": newline, "encoding": encoding}
        with self._failing():
            opened = self.fs.open(str(self), mode, **text)
        with opened as file:
            yield file

    def read_bytes(self) -> bytes:
        """A file's bytes."""
        with self._failing():
            return self.fs.cat_file(str(self))

    def read_text(self, encoding: str = "utf-8") -> str:
        """A file's text."""
        return self.read_bytes().decode(encoding)

    def write_text(self, text: str, encoding: str = "utf-8") -> None:
        """Writes a file, whole."""
        with self._failing():
            self.fs.pipe_file(str(self), text.encode(encoding))

    def fetch(self, target: pathlib.Path) -> None:
        """Copies a file from there to this machine."""
        with self._failing():
            self.fs.get_file(str(self), str(target))

    def send(self, source: pathlib.Path) -> None:
        """Copies a file from this machine to there."""
        with self._failing():
            self.fs.put_file(str(source), str(self))

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Makes a folder, where the store has such things."""
        with self._failing():
            self.fs.makedirs(str(self), exist_ok=True)

    def unlink(self, missing_ok: bool = False) -> None:
        """Deletes a file."""
        try:
            with self._failing():
                self.fs.rm_file(str(self))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def rmtree(self) -> None:
        """Deletes all that is below it, if anything is."""
        with contextlib.suppress(FileNotFoundError), self._failing():
            self.fs.rm(str(self), recursive=True)

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """Makes an OSError with number, text and address of what the packages raise."""
        try:
            yield
        except FileNotFoundError:
            number = errno.ENOENT
            raise OSError(number, os.strerror(number), str(self)) from None
        except PermissionError as error:
            raise OSError(errno.EACCES, _line(error), str(self)) from None
        except Exception as error:
            number = getattr(error, "errno", None) or errno.EIO
            text = getattr(error, "strerror", None) or _line(error)
            raise OSError(number, text, str(self)) from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def path(text: str | os.PathLike[str]) -> pathlib.Path | Uri:
    """A path of either kind; file:// is a path of this machine."""
    if isinstance(text, Uri):
        return text
    found = _SCHEME.match(os.fspath(text)) if isinstance(text, str) else None
    if not found:
        return pathlib.Path(text)
    if found["name"] == "file":
        return pathlib.Path(text.removeprefix("file://"))
    return Uri(text)
