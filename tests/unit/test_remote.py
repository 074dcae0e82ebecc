"""Models behind an address: header and tensor table by range, from a server on this machine."""

import json
import os
import re
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import gguf
import numpy as np
import pytest

from store.files.remote import FIRST, _resolved
from tests.artifacts import tiny_apr, tiny_gguf, tiny_model, tiny_safetensors
from tests.gguf_files import write_gguf
from workbench.__main__ import run

pytest.importorskip("aiohttp")
pytest.importorskip("fsspec")


class Server(ThreadingHTTPServer):
    """Serves a folder; /to/HOST/... sends on to that host, /whole/... knows no ranges."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.sent: list[tuple[str, int]] = []

    def address(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        kind, *rest = self.path.strip("/").split("/")
        if kind == "to":
            self.send_response(302)
            self.send_header("Location", f"http://{rest[0]}:{self.server.server_port}/{'/'.join(rest[1:])}")
            self.end_headers()
            return
        path = self.server.folder / "/".join(rest if kind == "whole" else [kind, *rest])
        if not path.is_file():
            self.send_error(404)
            return
        size = path.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        first, last = 0, size - 1
        if asked is not None and kind != "whole":
            first, last = int(asked[1]), min(int(asked[2]), size - 1)
        self.send_response(200 if kind == "whole" or asked is None else 206)
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.end_headers()
        with path.open("rb") as file:
            file.seek(first)
            left = last - first + 1
            while left and (data := file.read(min(left, 1 << 16))):
                try:
                    self.wfile.write(data)
                except OSError:
                    break
                left -= len(data)
        self.server.sent.append((self.path, last - first + 1 - left))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path):
    running = Server(tmp_path)
    thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


def described(source: str | Path, capsys) -> dict:
    """What inspect says of a source, but for where it is and its values."""
    assert run(["inspect", str(source), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    return {key: value for key, value in found.items() if key not in ("path", "files", "problems", "tokenizer")}


@pytest.mark.parametrize("kind", ["gguf", "apr", "safetensors", "index", "parts"])
def test_an_address_is_described_as_the_file(tmp_path, server, capsys, kind):
    name = {
        "gguf": "m.gguf",
        "apr": "m.apr",
        "safetensors": "m/model.safetensors",
        "index": "m/model.safetensors.index.json",
        "parts": "m-00002-of-00003.gguf",
    }[kind]
    if kind == "gguf":
        tiny_gguf(tmp_path / name, "llama", "Q8_0", vocab=300, vocabulary="spm")
    elif kind == "apr":
        tiny_apr(tmp_path / name)
    elif kind == "parts":
        write_gguf(tmp_path / "m.gguf", tiny_model("llama", "Q8_0"), part=9)
    else:
        tiny_safetensors(tmp_path / "m", shards=3 if kind == "index" else 1)
    local = described(tmp_path / name, capsys)
    assert described(server.address(name), capsys) == local
    assert local["runnable"]


def test_of_a_large_file_only_the_header_is_fetched_and_the_size_is_said_first(tmp_path, server, capsys):
    words = [f"token {n}" for n in range(60_000)]
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_array("tokenizer.ggml.tokens", words)
    writer.add_array("tokenizer.ggml.scores", [0.0] * len(words))
    writer.add_tensor("a", np.zeros((1, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    header = (tmp_path / "m.gguf").stat().st_size
    os.truncate(tmp_path / "m.gguf", 5 << 30)  # sparse
    assert run(["inspect", server.address("m.gguf")]) == 0
    out, err = capsys.readouterr()
    assert err == f"{server.address('m.gguf')} has 5.0 GiB; its header and tensor table are fetched.\n"
    assert f"{server.address('m.gguf')}: gguf, 5.0 GiB" in out
    assert header > 4 * FIRST
    assert sum(count for _, count in server.sent) < 2.5 * header


def test_another_host_is_named_and_followed_where_it_is_allowed(tmp_path, server, capsys):
    tiny_gguf(tmp_path / "m.gguf")
    here, there = server.address("to/127.0.0.1/m.gguf"), server.address("to/localhost/m.gguf")
    assert run(["inspect", here]) == 0
    capsys.readouterr()
    assert run(["inspect", there]) == 2
    said = capsys.readouterr().err
    assert "m.gguf is kept on another host, localhost; allow that by --allow-host localhost, or download" in said
    assert server.sent[-1][0] == "/m.gguf"
    assert len(server.sent) == 1
    assert run(["inspect", there, "--allow-host", "localhost"]) == 0
    loop = server.address("to/127.0.0.1/" * 9 + "m.gguf")
    assert run(["inspect", loop]) == 2
    assert "was sent on 5 times" in capsys.readouterr().err


def test_what_a_server_does_not_do_is_told(tmp_path, server, capsys):
    (tmp_path / "m.gguf").write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, 0))
    os.truncate(tmp_path / "m.gguf", 1 << 28)
    cases = {
        server.address("whole/m.gguf"): "is sent only as a whole; download it",
        server.address("none.gguf"): "does not exist",
        "http://127.0.0.1:9/m.gguf": "cannot be read",
        "hf://owner/model": "names no file; give hf://OWNER/MODEL/FILE",
    }
    for address, words in cases.items():
        assert run(["inspect", address]) == 2
        said = capsys.readouterr().err
        assert words in said
        assert address.partition("://")[2].split("/")[0] in said
    assert sum(count for _, count in server.sent) < 1 << 24


def test_a_header_that_goes_on_for_ever_is_not_followed(tmp_path, server, capsys, monkeypatch):
    content = struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + struct.pack("<Q1sIIQ", 1, b"k", 9, 8, 1 << 22)
    (tmp_path / "m.gguf").write_bytes(content)
    os.truncate(tmp_path / "m.gguf", 1 << 30)  # four million empty strings
    monkeypatch.setattr("store.files.remote.MAX_HEADER", 1 << 22)
    assert run(["inspect", server.address("m.gguf")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 2  # the size, and the sentence
    assert "m.gguf begins with a header of more than 4194304 bytes; download it" in said
    assert sum(count for _, count in server.sent) < 1 << 23


def test_addresses_are_for_inspect_alone(capsys):
    assert run(["weights", "https://example.org/a.gguf", "https://example.org/b.gguf"]) == 2
    assert "https://example.org/a.gguf is an address, which only `inspect` reads" in capsys.readouterr().err
    assert run(["inspect", "https://example.org/a.gguf", "b.gguf"]) == 2
    assert run(["inspect", "b.gguf", "--allow-host", "x"]) == 2


def test_where_files_of_hugging_face_are():
    address = "https://huggingface.co/Qwen/Q/resolve/main/a%20b/m.gguf"
    assert _resolved("hf://Qwen/Q/a b/m.gguf") == address
    assert _resolved("hf://Qwen/Q@v1/m.gguf") == "https://huggingface.co/Qwen/Q/resolve/v1/m.gguf"
