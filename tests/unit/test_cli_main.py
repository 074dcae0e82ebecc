"""The command line as a whole: fast help, one sentence per error, exit codes."""

import errno
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

import workbench.cli
from kernels.errors import WorkbenchError
from kernels.paths import PATHS
from store.traces.statistics_table import SCOPES
from tests.artifacts import tiny_gguf
from workbench.__main__ import run
from workbench.cells.metrics import METRICS
from workbench.cli import COMMANDS
from workbench.cli.options import METRIC_NAMES, PATH_NAMES, SCOPE_NAMES
from workbench.demo import MODEL

ROOT = Path(__file__).parents[2]
HEAVY = ("numpy", "numba", "h5py", "textual", "gguf", "safetensors", "tokenizers", "jinja2", "yaml", "rich")


def failing(error, monkeypatch):
    @click.command()
    def command():
        raise error

    monkeypatch.setattr(workbench.cli.workbench, "get_command", lambda ctx, name: command)


def test_help_loads_nothing_heavy():
    code = "import sys; from workbench.__main__ import run; run(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(HEAVY) & {name.partition(".")[0] for name in done.stderr.split()}
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(name, capsys):
    assert run([name, "-h"]) == 0
    shown = capsys.readouterr().out
    assert f"Example:  workbench {name}" in shown
    assert "--json" in shown


def test_without_a_command_the_help_shows_the_path_and_is_no_answer(capsys):
    assert run([]) == 2
    out, err = capsys.readouterr()
    places = [out.index(f"\n  {name} ") for name in ("open", "bisect", "patch", "export")]
    assert places == sorted(places)
    assert all(len(line) <= 100 for line in out.splitlines())
    assert err == "workbench: no command was given; `workbench demo` is a good first one\n"
    assert run(["--help"]) == 0
    assert capsys.readouterr().out == out


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        ("bisct", "there is no command bisct; did you mean bisect?"),
        ("open a b --promt x", "there is no option --promt; did you mean --prompt?"),
        ("open a b --path-a F3", "'F3' is not known; did you mean f32?"),
        ("compare a b --metric relrms", "'relrms' is not known; did you mean rel_rms?"),
        ("compare a b --metric nonsense", "'nonsense' is not known; it takes one of std_ratio, rel_rms, "),
        ("bisect a b --cell 3:ffn_gat", "'3:ffn_gat' names no stage; did you mean ffn_gate?"),
        ("trace a --save-tensor lm_haed -o x", "'lm_haed' names no stage; did you mean lm_head?"),
        ("lab 9", "lab has no experiment 9; it has 005 determinism, "),
        ("lab rowss", "lab has no experiment rowss; did you mean rows?"),
        ("lab 009 --set dept=5", "lab 009 has no parameter of that name; did you mean depth?"),
        (f"lab rows {MODEL} --stage ffn_dwn", "--stage ffn_dwn names no stage; did you mean ffn_"),
        ("demo --fault zeroe", "there is no fault zeroe; did you mean zeroed?"),
        ("check party a b", "party cannot be read (no such file or directory); did you mean parity?"),
        (
            f"patch {MODEL} {MODEL} --tokens 1 --tensor model.layer.3.mlp.up_proj.weight",
            "has a tensor model.layer.3.mlp.up_proj.weight; did you mean model.layers.3.mlp.up_proj.weight?",
        ),
    ],
)
def test_who_mistypes_a_name_is_told_the_nearest(arguments, meant, capsys):
    assert run(arguments.split()) == 2
    out, err = capsys.readouterr()
    assert meant in err
    assert (out, err.count("\n")) == ("", 1)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("bi", {"bisect"}),
        ("open --pr", {"--prompt"}),
        ("compare a b --metric re", {"rel_rms"}),
        ("demo --fault ze", {"zeroed"}),
        ("bisect a b --cell 3:ffn_g", {"3:ffn_gate"}),
        ("lab ro", {"rope", "rows"}),
    ],
)
def test_a_shell_completes_names(typed, words):
    program = [sys.executable, "-m", "workbench"]
    asked = {"_WORKBENCH_COMPLETE": "bash_complete", "COMP_WORDS": f"workbench {typed}"}
    asked["COMP_CWORD"] = str(len(typed.split(" ")))
    done = subprocess.run(program, capture_output=True, text=True, env=os.environ | asked, cwd=ROOT, check=True)
    assert {line.removeprefix("plain,") for line in done.stdout.split()} == words
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_what_a_shell_is_told_to_complete_by_is_documented(shell):
    """Doctor and documents name what the library prints, and the shell accepts it."""
    from workbench.machine.doctor import COMPLETION

    asked = f"_WORKBENCH_COMPLETE={shell}_source"
    assert asked in COMPLETION[shell]
    assert asked in (ROOT / "docs/commands.md").read_text()
    environment = os.environ | dict([asked.split("=")])
    program = [sys.executable, "-m", "workbench"]
    done = subprocess.run(program, capture_output=True, text=True, env=environment, cwd=ROOT, check=True)
    assert f"_WORKBENCH_COMPLETE={shell}_complete" in done.stdout
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=done.stdout, text=True, check=True)


def test_version(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"workbench {workbench.__version__}\n"


def test_names_on_the_command_line_are_those_of_the_program():
    assert PATH_NAMES == PATHS
    assert tuple(METRICS) == METRIC_NAMES
    assert SCOPES == SCOPE_NAMES


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (WorkbenchError("the file is\nbroken"), 2, "workbench: the file is broken"),
        (WorkbenchError("name \x1b[31m"), 2, "workbench: name \\x1b[31m"),
        (MemoryError(), 2, "workbench: out of memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 2, "workbench: out of memory"),
        (
            FileNotFoundError(2, "No such file or directory", "x.gguf"),
            2,
            "workbench: x.gguf: no such file or directory",
        ),
        (ZeroDivisionError("oops"), 2, "workbench: stopped on an internal error (ZeroDivisionError: oops)"),
        (KeyboardInterrupt(), 130, "workbench: interrupted"),
    ],
)
def test_every_error_is_one_sentence(error, status, words, monkeypatch, capsys):
    failing(error, monkeypatch)
    assert run(["open"]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.lstrip("\n").startswith(words)  # click ends the line of a terminal's ^C
    assert err.strip("\n").count("\n") == 0


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["inspect"], ["inspect", "--nonsense"], ["inspect", "nowhere.gguf"]]
)
def test_bad_usage_is_exit_code_2(arguments, capsys):
    assert run(arguments) == 2
    assert capsys.readouterr().err.startswith("workbench: ")


@pytest.mark.parametrize("command", COMMANDS)
def test_under_json_the_reason_is_an_object_too(command, capsys):
    assert run([command, "nowhere", "nowhere", "--json", "--no-such-option"]) == 2
    out, err = capsys.readouterr()
    assert err == f"workbench: {json.loads(out)['error']}\n"


def test_what_was_answered_is_one_object_with_the_reason_why_it_is_no_verdict(tmp_path, capsys):
    tiny_gguf(tmp_path / "other.gguf")
    for command in ("compare", "bisect"):
        assert run([command, str(MODEL), str(tmp_path / "other.gguf"), "--tokens", "1,2", "--json"]) == 2
        out, err = capsys.readouterr()
        record = json.loads(out)
        assert record["tokens"] == [1, 2]
        assert err == f"workbench: {record['error']}\n"


def test_a_prompt_that_both_sides_tokenize_differently_is_shown_on_both(tmp_path, capsys):
    tiny_gguf(tmp_path / "a.gguf", vocabulary="bpe", vocab=300)
    tiny_gguf(tmp_path / "b.gguf", vocabulary="spm", vocab=300)
    assert run(["bisect", str(tmp_path / "a.gguf"), str(tmp_path / "b.gguf"), "--prompt", "hell", "--json"]) == 2
    out, err = capsys.readouterr()
    record = json.loads(out)
    assert record["verdict"] == "uncomparable"
    ids = [record[side]["tokens"] for side in "ab"]
    assert ids[0] != ids[1]
    assert all(",".join(map(str, side)) in err for side in ids)
    assert record["error"] in err


@pytest.mark.parametrize("ids", ["", ",", "1,x", "1,-2", "1.5", "²", "1,,2", "1,", ",1", "9" * 5000, "4294967296"])
def test_token_ids_are_checked(ids, capsys):
    assert run(["compare", "a", "b", "--tokens", ids]) == 2
    err = capsys.readouterr().err
    assert "token ids" in err
    assert len(err) < 300


def test_tokens_may_come_from_a_file_or_from_stdin(tmp_path, capsys, monkeypatch):
    ids = list(range(1, 5)) * 25_000
    (tmp_path / "ids").write_text("\n".join(f"{a}, {b} {c},{d}" for a, b, c, d in [ids[:4]] * 25_000))
    seen = []
    monkeypatch.setattr(
        "workbench.pair.tokens.shared_tokens", lambda sources, tokens, prompt: seen.append(tokens) or 1 / 0
    )
    command = ["trace", str(MODEL), "-o", str(tmp_path / "o.h5"), "--tokens-file"]
    assert run([*command, str(tmp_path / "ids")]) == 2
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"7 8,9\n")))
    assert run([*command, "-"]) == 2
    assert [list(tokens) for tokens in seen] == [ids, [7, 8, 9]]
    capsys.readouterr()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", 1 << 38)
    (tmp_path / "words").write_text("1 2 three")
    for name in ("pipe", "huge", "words", "nowhere", "."):
        assert run([*command, str(tmp_path / name)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert run([*command, str(tmp_path / "ids"), "--tokens", "1"]) == 2
    assert len(seen) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", ""],
        ["compare", "", ""],
        ["open", "a", "b", "--session", ""],
        ["demo", "--session", ""],
        ["export", "s", "-o", ""],
        ["compare", "a", "b", "--tokens", "1", "--scope", "9" * 5000],
        ["bisect", "a", "b", "--tokens", "1", "--cell", "9" * 5000 + ":ffn_up"],
    ],
)
def test_empty_names_and_endless_numbers_are_one_short_sentence(arguments, capsys):
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert len(err) < 300


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_no_name_and_no_terminal_makes_a_command_fail_after_its_work(tmp_path, encoding):
    model, copy = (os.fsencode(tmp_path) + b"/" + name for name in (b"m\xff\x1b[31m.gguf", b"c\xff\xc3\xa9.apr"))
    shutil.copy(os.fsencode(MODEL), model)
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    for command in (["convert", model, "-o", copy], ["inspect", copy], ["inspect", copy, "--json"]):
        program = [sys.executable, "-m", "workbench", *command]
        done = subprocess.run(program, capture_output=True, env=environment, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"\x1b" not in done.stdout
        assert b"\\xff" in done.stdout or b"\\udcff" in done.stdout


def test_json_holds_what_json_has_no_number_for(capsys, monkeypatch):
    answer = {"x": float("nan"), "y": [float("-inf")], "z": "\ud800"}
    monkeypatch.setattr("workbench.cli.workbench.main", lambda obj, **_: obj.update(answer))
    assert run(["inspect", "m", "--json"]) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == {"x": "nan", "y": ["-inf"], "z": "\ud800"}


BUS_ERROR = """
import os, sys, threading
import numpy as np
from workbench.machine.bus_errors import tell_bus_errors
tell_bus_errors()
values = np.memmap(sys.argv[1], np.uint8, "c")
os.truncate(sys.argv[1], 0)
reading = threading.Thread(target=values.sum)
reading.start()
reading.join()
"""


def test_a_bus_error_ends_in_a_sentence(tmp_path):
    (tmp_path / "model").write_bytes(bytes(1 << 20))
    command = [sys.executable, "-c", BUS_ERROR, tmp_path / "model"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("workbench: a file was cut short while it was read")
    assert done.stderr.count("\n") == 1


def test_a_closed_pipe_is_silent():
    program = f"{sys.executable} -m workbench inspect {MODEL} --json | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, env=os.environ)
    assert done.stderr == ""
    assert int(done.stdout) in (0, 141)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no full device")
@pytest.mark.parametrize("options", ["", "--json"])
def test_an_answer_that_did_not_arrive_is_not_one_of_the_answers(options):
    program = f"{sys.executable} -m workbench inspect {MODEL} {options} >/dev/full"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, env=os.environ, cwd=ROOT)
    words = "workbench: the output cannot be written (no space left on device); make room for it\n"
    assert (done.returncode, done.stderr) == (2, words)


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(("source", "status"), [(MODEL, 0), ("nowhere", 2)])
def test_without_an_output_only_the_exit_code_answers(closed, source, status):
    program = f"{sys.executable} -m workbench inspect {source} {closed}"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, env=os.environ, cwd=ROOT)
    assert done.returncode == status
    assert "Traceback" not in done.stderr


def test_json_is_the_only_thing_on_stdout(capsys):
    assert run(["inspect", str(MODEL), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["config"]["num_hidden_layers"] == 6
    assert out.count("\n") == 1
    assert err == ""
