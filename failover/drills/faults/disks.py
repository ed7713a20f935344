"""What goes wrong below a node's server: its files, its disk, its clock."""

from __future__ import annotations

import asyncio
import ctypes.util
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from chain.errors import Refused, Unavailable
from failover.drills.faults.base import LocalFault, Party
from failover.drills.ground import Ground, Need, Undos
from failover.local import processes
from failover.local.chain import LocalChain

CLOCK_FILE: Final = "geochain.clock"
"""In a server's data folder: by how much its clock is wrong."""


class SaveBackup(LocalFault):
    """A copy of a node's data is taken, as a power cut would leave it, for `restore-backup`."""

    fault: Literal["save-backup"]
    target: Party

    async def inject(self, ground: Ground, undos: Undos) -> str:
        node = await ground.node(self.target)
        folder = ground.chain.node_folder(node)

        async def forget() -> None:
            await asyncio.to_thread(shutil.rmtree, folder / "backup", ignore_errors=True)

        undos.add(f"remove the backup of {node}", forget)
        await ground.chain.kill_postgres(node)
        try:
            await _copy(folder / "data", folder / "backup")
        finally:
            await ground.chain.start_postgres(node)
        return node


class RestoreBackup(LocalFault):
    """A node's data is as it was when `save-backup` took a copy of it: the server has gone back."""

    fault: Literal["restore-backup"]
    target: Party

    async def inject(self, ground: Ground, undos: Undos) -> str:
        node = await ground.node(self.target)
        folder = ground.chain.node_folder(node)
        if not (folder / "backup").exists():
            raise Refused(f"there is no backup of {node}", hint="take one earlier: save-backup")
        undos.add(f"start {node}", lambda: ground.chain.start(node))
        await ground.chain.kill_postgres(node)
        await asyncio.to_thread(shutil.rmtree, folder / "data")
        await _copy(folder / "backup", folder / "data")
        await ground.chain.start_postgres(node)
        return node


class WipeNode(LocalFault):
    """A node's machine is replaced by an empty one of the same name."""

    fault: Literal["wipe-node"]
    target: Party

    async def inject(self, ground: Ground, undos: Undos) -> str:
        node = await ground.node(self.target)
        undos.add(f"start {node}", lambda: ground.chain.start(node))
        await ground.chain.kill(node)
        await asyncio.to_thread(shutil.rmtree, ground.chain.node_folder(node) / "data")
        await ground.chain.start(node)
        return node


class FullDisk(LocalFault):
    """A node's disk is full. Its folder is on a disk of its own, which is small."""

    needs = frozenset({Need.LOCAL, Need.MOUNT})
    fault: Literal["disk-full"]
    target: Party
    disk_mb: Annotated[int, Field(ge=160, le=4096)] = 256

    async def inject(self, ground: Ground, undos: Undos) -> str:
        node = await ground.node(self.target)
        filler = ground.chain.node_folder(node) / "filler"

        async def make_room() -> None:
            await asyncio.to_thread(filler.unlink, missing_ok=True)
            await ground.chain.start_postgres(node)  # a server that could not write its log has died

        undos.add(f"make room on the disk of {node}", make_room)
        left = await asyncio.to_thread(_fill, filler)
        return f"{node}: {left // 1024:,} KiB were left"


class ClockJump(LocalFault):
    """A node's server has a clock that is wrong by so much, at once."""

    needs = frozenset({Need.LOCAL, Need.FAKETIME})
    fault: Literal["clock-jump"]
    target: Party
    by_s: Annotated[float, Field(ge=-86400, le=86400, allow_inf_nan=False)]

    async def inject(self, ground: Ground, undos: Undos) -> str:
        node = await ground.node(self.target)
        file = ground.chain.node_folder(node) / "data" / CLOCK_FILE

        async def right() -> None:
            await asyncio.to_thread(file.write_text, "+0")

        undos.add(f"set the clock of {node} right", right)
        await asyncio.to_thread(file.write_text, f"{self.by_s:+g}")
        return f"{node}, by {self.by_s:+g} s"


def _fill(path: Path) -> int:
    """Fills a file system but for a page or two; gives what was left over."""
    block = bytes(1024 * 1024)
    with path.open("wb", buffering=0) as file:
        for size in (len(block), 4096):
            try:
                while file.write(block[:size]) == size:
                    pass
            except OSError:
                continue
    stat = os.statvfs(path)
    return stat.f_bavail * stat.f_frsize


async def _copy(source: Path, target: Path) -> None:
    code, output = await processes.Identity().run("cp", "-a", source, target, cwd=source.parent)
    if code != 0:
        raise Unavailable(f"{source} can't be copied: {output.strip()}")


# What has to be there before the chain is.


class Disks:
    """Small file systems of their own for nodes' folders, in memory. `unmount` is complete and idempotent."""

    def __init__(self, chain: LocalChain) -> None:
        self._chain = chain

    async def mount(self, node: str, size_mb: int) -> None:
        """Raises Unavailable if it can't be done here."""
        folder = self._chain.node_folder(node)
        folder.mkdir(parents=True, exist_ok=True)
        option = f"size={size_mb}m"
        code, output = await processes.Identity().run(
            "mount", "-t", "tmpfs", "-o", option, "geochain-drill", folder, cwd=self._chain.folder
        )
        if code != 0:
            raise Unavailable(f"no small disk can be had: {output.strip()}", hint="mounting needs root")

    async def unmount(self) -> None:
        """After all processes have ended."""
        mounts = await asyncio.to_thread(Path("/proc/self/mounts").read_text)
        root = str(self._chain.folder.resolve())
        for line in reversed(mounts.splitlines()):
            where = line.split()[1].replace("\\040", " ")
            if line.startswith("geochain-drill ") and where.startswith(root + "/"):
                await processes.Identity().run("umount", where, cwd=Path("/"))


def can_mount() -> bool:
    return os.geteuid() == 0 and shutil.which("mount") is not None


def faketime() -> Path | None:
    """The library that gives a process another clock; None if it is not installed."""
    folders = ("/usr/lib/*/faketime", "/usr/local/lib/faketime", "/usr/lib/faketime")
    for pattern in folders:
        found = sorted(Path("/").glob(f"{pattern.lstrip('/')}/libfaketime.so.1"))
        if found:
            return found[0]
    name = ctypes.util.find_library("faketime")
    return Path(name) if name else None


def clock_env() -> Mapping[str, str]:
    """For servers whose clocks are to jump. Their monotonic clocks and their sleeps stay true."""
    library = faketime()
    return (
        {}
        if library is None
        else {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": CLOCK_FILE,
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
    )
