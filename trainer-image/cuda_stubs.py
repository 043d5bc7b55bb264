"""Lets PyTorch's CUDA build start on a machine for CPU work without 4 GB of CUDA libraries.

The package index's Linux build of torch is linked against cuBLAS, cuDNN, NCCL and others, so that `import torch`
fails where they are missing, although nothing calls them without a GPU. For an image that will see no GPU this
script writes one small shared library in their place:

- symbolic links with each missing library's name point to it, beside torch's own libraries, where torch looks,
- it defines every function, with its symbol version, that torch's libraries need of the missing ones,
- and every function fails: it returns 1, which is an error code in all of these libraries, or, if it returns a
  text, says what is missing.

The real libcudart stays: it detects that there is no GPU.

    python cuda_stubs.py SITE_PACKAGES

File format: System V ABI, chapters 4 and 5, and for the symbol versions LSB Core, "Symbol Versioning".
"""

from __future__ import annotations

import platform
import re
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

STUB_NAME = "libcuda-stubs.so"
DRIVER = "libcuda.so.1"  # belongs to the host: never part of an image
MESSAGE = "this image is for CPU work: CUDA's libraries are not in it"

# The APIs whose functions have no symbol version, and so are recognized by their names.
UNVERSIONED_API = re.compile(r"(cu|nccl|nv)\w+")
RETURNS_TEXT = re.compile(r"\w*(String|LastError)")

# Machine code of a function that returns 1, and of one that returns the address of the text after it.
CODE = {
    "x86_64": (bytes.fromhex("b801000000c3"), bytes.fromhex("488d0501000000c3")),
    "aarch64": (bytes.fromhex("20008052c0035fd6"), bytes.fromhex("40000010c0035fd6")),
}
ELF_MACHINE = {"x86_64": 62, "aarch64": 183}


@dataclass(frozen=True)
class Missing:
    """The missing libraries that a set of libraries needs, and the symbols that it needs of them."""

    libraries: frozenset[str]
    symbols: Mapping[str, str]
    """Symbol -> the required version, empty for none."""


@dataclass
class Library:
    """The dynamic symbols of one shared library."""

    needs: list[str] = field(default_factory=list)
    defined: set[str] = field(default_factory=set)
    undefined: list[tuple[str, str, str]] = field(default_factory=list)
    """(symbol, library, version), the last two empty for a symbol without a version."""


def read_library(path: Path) -> Library:
    """The dynamic symbols of a shared library and the libraries that it needs."""
    from elftools.elf.elffile import ELFFile  # Installed only for the image's build.

    library = Library()
    with path.open("rb") as file:
        elf = ELFFile(file)
        library.needs = [tag.needed for tag in elf.get_section_by_name(".dynamic").iter_tags("DT_NEEDED")]
        versions = elf.get_section_by_name(".gnu.version")
        required = elf.get_section_by_name(".gnu.version_r")
        sources = {
            version["vna_other"]: (needed.name, version.name)
            for needed, of_library in (required.iter_versions() if required else ())
            for version in of_library
        }
        for number, symbol in enumerate(elf.get_section_by_name(".dynsym").iter_symbols()):
            if symbol["st_shndx"] != "SHN_UNDEF":
                library.defined.add(symbol.name)
            elif symbol["st_info"]["bind"] == "STB_GLOBAL":
                source = sources.get(versions.get_symbol(number)["ndx"], ("", "")) if versions else ("", "")
                library.undefined.append((symbol.name, *source))
    return library


def find_missing(libraries: Mapping[str, Library]) -> Missing:
    """What `libraries` (by file name) need of those of CUDA's libraries that are not among them."""
    needed = {need for one in libraries.values() for need in one.needs if re.match(r"lib(cu|nccl|nv)", need)}
    names = needed - libraries.keys() - {DRIVER}
    defined = {symbol for one in libraries.values() for symbol in one.defined}
    symbols = {
        symbol: version
        for one in libraries.values()
        for symbol, library, version in one.undefined
        if library in names or (not library and symbol not in defined and UNVERSIONED_API.fullmatch(symbol))
    }
    return Missing(frozenset(names), symbols)


def system_v_hash(name: str) -> int:
    """The hash of the System V ABI for symbol and version names."""
    value = 0
    for byte in name.encode():
        value = (value << 4) + byte
        high = value & 0xF0000000
        value = (value ^ (high >> 24)) & ~high
    return value


class Strings:
    """A string table."""

    def __init__(self) -> None:
        self.content = bytearray(b"\0")

    def add(self, text: str) -> int:
        """Append `text`; returns its offset."""
        offset = len(self.content)
        self.content += text.encode() + b"\0"
        return offset


def aligned(parts: Mapping[str, bytes], start: int) -> Iterator[tuple[str, int]]:
    """The address of each part if they are placed one after the other from `start`, aligned to 8 bytes."""
    for name, content in parts.items():
        yield name, start
        start += len(content) + -len(content) % 8


def shared_library(symbols: Mapping[str, str], machine: str) -> bytes:
    """An ELF shared library that defines failing functions: symbol -> version, empty for none.

    `machine` is the kernel's name of it. Layout: ELF header, program headers, tables, code, then the dynamic
    section on a page of its own, because the loader writes to it. File offsets are addresses.
    """
    fails, tells = CODE[machine]
    strings = Strings()
    soname = strings.add(STUB_NAME)
    versions = sorted({version for version in symbols.values() if version})
    numbers = {"": 1, **{version: number for number, version in enumerate(versions, start=2)}}
    definitions = version_definitions(versions, strings)
    names = [strings.add(symbol) for symbol in symbols]
    parts = {
        "hash": hash_table(len(symbols)),
        "versions": struct.pack(f"<{1 + len(symbols)}H", 0, *(numbers[version] for version in symbols.values())),
        "definitions": definitions,
        "strings": bytes(strings.content),
        "symbols": bytes(24 * (1 + len(symbols))),  # filled in below, when the code's address is known
        "fails": fails,
        "tells": tells + MESSAGE.encode() + b"\0",
    }
    headers = 64 + 4 * 56
    at = dict(aligned(parts, headers))
    parts["symbols"] = bytes(24) + b"".join(
        struct.pack("<IBBHQQ", name, 0x12, 0, 1, at["tells" if RETURNS_TEXT.fullmatch(symbol) else "fails"], 8)
        for name, symbol in zip(names, symbols, strict=True)
    )
    body = b"".join(content + bytes(-len(content) % 8) for content in parts.values())
    dynamic = dynamic_section(at, soname, len(strings.content), 1 + len(versions))
    page = 0x10000  # the largest page of any of these machines
    end = headers + len(body)
    writable = end + -end % page
    segments = [
        (1, 5, 0, end, page),  # PT_LOAD, read and execute
        (1, 6, writable, len(dynamic), page),  # PT_LOAD, read and write
        (2, 6, writable, len(dynamic), 8),  # PT_DYNAMIC
        (0x6474E551, 6, 0, 0, 16),  # PT_GNU_STACK, not executable
    ]
    return (elf_headers(machine, segments) + body).ljust(writable, b"\0") + dynamic


def version_definitions(versions: Sequence[str], strings: Strings) -> bytes:
    """The symbol versions that the library defines; number 1 is the library itself, as the format requires."""
    definitions = b""
    for number, version in enumerate([STUB_NAME, *versions], start=1):
        next_offset = 28 if number <= len(versions) else 0
        definitions += struct.pack("<HHHHIII", 1, number == 1, number, 1, system_v_hash(version), 20, next_offset)
        definitions += struct.pack("<II", strings.add(version), 0)
    return definitions


def hash_table(symbols: int) -> bytes:
    """A hash table with a single bucket: 500 comparisons for each of torch's 500 lookups take no time."""
    chain = [*range(2, symbols + 1), 0] if symbols else []
    return struct.pack(f"<III{1 + len(chain)}I", 1, 1 + len(chain), min(1, len(chain)), 0, *chain)


def dynamic_section(at: Mapping[str, int], soname: int, strings_size: int, versions: int) -> bytes:
    """The dynamic section; `at`: the addresses of the tables, `soname`: the offset of the name in the string table."""
    entries = [
        (14, soname),  # DT_SONAME
        (4, at["hash"]),  # DT_HASH
        (5, at["strings"]),  # DT_STRTAB
        (10, strings_size),  # DT_STRSZ
        (6, at["symbols"]),  # DT_SYMTAB
        (11, 24),  # DT_SYMENT
        (0x6FFFFFF0, at["versions"]),  # DT_VERSYM
        (0x6FFFFFFC, at["definitions"]),  # DT_VERDEF
        (0x6FFFFFFD, versions),  # DT_VERDEFNUM
        (0, 0),
    ]
    return b"".join(struct.pack("<QQ", tag, value) for tag, value in entries)


def elf_headers(machine: str, segments: Sequence[tuple[int, int, int, int, int]]) -> bytes:
    """The ELF header and the program headers, each segment as (type, flags, offset, size, alignment)."""
    identity = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    counts = (64, 56, len(segments), 64, 0, 0)
    header = identity + struct.pack("<HHIQQQIHHHHHH", 3, ELF_MACHINE[machine], 1, 0, 64, 0, 0, *counts)
    return header + b"".join(
        struct.pack("<IIQQQQQQ", kind, flags, offset, offset, offset, size, size, alignment)
        for kind, flags, offset, size, alignment in segments
    )


def main(site_packages: Path) -> None:
    """Write the stub and its links to torch's library folder; nothing if this torch needs none."""
    folder = site_packages / "torch" / "lib"
    paths = [*folder.glob("*.so*"), *site_packages.glob("nvidia/**/*.so*")]
    missing = find_missing({path.name: read_library(path) for path in paths})
    if missing.libraries:
        (folder / STUB_NAME).write_bytes(shared_library(missing.symbols, platform.machine()))
    for name in sorted(missing.libraries):
        (folder / name).symlink_to(STUB_NAME)
        sys.stdout.write(f"{name}: a stub\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
