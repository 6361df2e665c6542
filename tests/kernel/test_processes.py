"""Programs and their pipes (coro/processes.py, coro/streams.py). Their ends are in test_process_ends.py."""

from __future__ import annotations

import pickle
import selectors
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import coro
from coro import Coro, Process, ProcessError, TaskGroup, open_process, run_process
from tests.kernel.programs import BIG, in_both_ways, is_gone, leaves_no_descriptor_behind, python_program, waiting  # noqa: F401 (fixtures)
from tests.kernel.support import on_every_selector, python, run_on, run_tidy

# --- run_process: what goes in and comes out -----------------------------------------------------------------


def test_result_tells_exit_code_and_both_outputs() -> None:
    command = ["sh", "-c", "echo out; echo err >&2"]

    def main() -> Coro[None]:
        done = yield from run_process(command)
        assert (done.args, done.returncode, done.stdout, done.stderr) == (command, 0, b"out\n", b"err\n")

    run_tidy(main())


@pytest.mark.parametrize(
    "data", [b"text", bytearray(b"text"), memoryview(b"text"), b""], ids=["bytes", "bytearray", "memoryview", "empty"]
)
def test_bytes_are_fed_to_the_program(data: bytes) -> Coro[None]:
    assert (yield from run_process(["cat"], stdin=data)).stdout == bytes(data)


def test_program_without_input_finds_it_at_its_end() -> Coro[None]:
    assert (yield from run_process(["cat"])).stdout == b""


def test_more_than_the_pipes_hold_goes_in_and_out_at_once() -> Coro[None]:
    done = yield from run_process(["sh", "-c", "tee /dev/stderr"], stdin=BIG)
    assert done.stdout == done.stderr == BIG


def test_program_that_does_not_read_its_input_is_no_error() -> Coro[None]:
    assert (yield from run_process(["true"], stdin=BIG)).returncode == 0


def test_standard_error_can_go_where_the_output_goes() -> Coro[None]:
    done = yield from run_process(["sh", "-c", "echo out; echo err >&2"], stderr=subprocess.STDOUT)
    assert done.stdout == b"out\nerr\n"
    assert vars(done)["stderr"] is None


def test_files_can_be_input_and_output(tmp_path: Path) -> Coro[None]:
    (tmp_path / "in").write_bytes(b"text")
    with open(tmp_path / "in", "rb") as source, open(tmp_path / "out", "wb") as target:
        done = yield from run_process(["cat"], stdin=source, stdout=target, stderr=subprocess.DEVNULL)
    assert (tmp_path / "out").read_bytes() == b"text"
    assert vars(done)["stdout"] is vars(done)["stderr"] is None


def test_output_that_is_not_captured_is_ours() -> None:
    script = """
import coro
coro.run(coro.run_process(["sh", "-c", "cat; echo err >&2"], stdin=None, stdout=None, stderr=None))
"""
    done = python(script, input="text")
    assert (done.stdout, done.stderr) == ("text", "err\n")


def test_directory_and_environment_are_the_given_ones(tmp_path: Path) -> Coro[None]:
    done = yield from run_process(["/bin/sh", "-c", "pwd; echo $NAME$HOME"], cwd=tmp_path, env={"NAME": "value"})
    assert done.stdout == f"{tmp_path}\nvalue\n".encode()


def test_paths_can_be_arguments(tmp_path: Path) -> Coro[None]:
    (tmp_path / "file").write_bytes(b"text")
    assert (yield from run_process(["cat", tmp_path / "file"])).stdout == b"text"


# --- run_process: what goes wrong ----------------------------------------------------------------------------


def test_exit_code_other_than_0_is_an_error_that_quotes_what_the_program_said() -> Coro[None]:
    with pytest.raises(ProcessError) as caught:
        yield from run_process(["sh", "-c", "echo out; echo no such thing >&2; exit 3"])
    error = caught.value
    assert str(error) == "`sh -c 'echo out; echo no such thing >&2; exit 3'` ended with exit code 3: no such thing"
    assert (error.returncode, error.stdout, error.stderr) == (3, b"out\n", b"no such thing\n")


@pytest.mark.parametrize(("number", "name"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGRTMIN + 1, "signal 35")])
def test_error_names_the_signal_that_killed_the_program(number: int, name: str) -> Coro[None]:
    with pytest.raises(ProcessError, match=f"was killed by {name}") as caught:
        yield from run_process(["sh", "-c", f"kill -{int(number)} $$"])
    assert caught.value.returncode == -number


def test_exit_code_is_only_told_when_it_is_not_to_be_checked() -> Coro[None]:
    assert (yield from run_process(["false"], check=False)).returncode == 1


def test_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(ProcessError("message", -9, b"out", b"err")))
    assert (str(error), error.returncode, error.stdout, error.stderr) == ("message", -9, b"out", b"err")


@pytest.mark.parametrize("command", [["/no/such/program"], ["no-such-program"]])
def test_program_that_does_not_exist_is_named(command: Sequence[str]) -> Coro[None]:
    with pytest.raises(FileNotFoundError, match=command[0]):
        yield from run_process(command, stdin=b"text")


def test_directory_that_does_not_exist_is_named() -> Coro[None]:
    with pytest.raises(FileNotFoundError, match="/no/such/directory"):
        yield from run_process(["true"], cwd="/no/such/directory")


def test_command_line_for_a_shell_is_refused() -> Coro[None]:
    with pytest.raises(TypeError, match="a list of the program and its arguments, not 'ls -l'"):
        yield from run_process("ls -l")


@in_both_ways
def test_program_that_prints_more_than_the_limit_is_ended() -> None:
    def main() -> Coro[None]:
        with pytest.raises(coro.LimitExceeded, match="longer than 1000000 bytes"):
            yield from run_process(["yes"], limit=1_000_000)

    run_tidy(main())


# --- open_process: streams ------------------------------------------------------------------------------------------


def test_body_talks_with_the_program() -> None:
    def talk(process: Process) -> Coro[list[bytes]]:
        answers = []
        for question in b"6*7\n", b"1+1\n":
            yield from process.stdin.write(question)
            answers.append((yield from process.stdout.read_until(b"\n")))
        return answers

    def main() -> Coro[None]:
        program = python_program("import sys\nfor line in sys.stdin: print(eval(line), flush=True)")
        assert (yield from open_process(program, talk)) == [b"42\n", b"2\n"]

    run_tidy(main())


@pytest.mark.parametrize("end", ["by itself", "without its pipes"])
def test_program_has_ended_when_the_body_has(end: str) -> Coro[None]:
    def body(process: Process) -> Coro[Process]:
        if end == "by itself":
            process.stdin.close()
        yield from ()
        return process

    process = yield from open_process(["cat"], body)
    assert process.returncode == 0
    assert is_gone(process.pid)
    assert process.stdin.closed and process.stdout.closed


def test_all_reading_functions_work_on_pipes() -> Coro[None]:
    def body(process: Process) -> Coro[None]:
        stdout = process.stdout
        assert (yield from stdout.read_exactly(4)) == b"abcd"
        assert (yield from stdout.read_until(b"\n")) == b"ef\n"
        buffer = bytearray(3)
        assert (yield from stdout.read_into(buffer)) == 3
        assert buffer == b"ghi"
        stdout.unread(b"hi")
        assert (yield from stdout.read(1)) == b"h"
        with pytest.raises(coro.EndOfStream, match=r"<ReadStream pipe, fd \d+> ended 5 bytes short of 8") as caught:
            yield from stdout.read_exactly(8)
        assert caught.value.partial == b"ij\n"
        assert (yield from stdout.read_into(buffer)) == 0
        assert (yield from stdout.read()) == b""

    yield from open_process(["printf", r"abcdef\nghij\n"], body)


def test_big_reads_fill_a_buffer_piece_by_piece() -> Coro[None]:
    def body(process: Process) -> Coro[bytes]:
        received, buffer = bytearray(), bytearray(1 << 17)
        while count := (yield from process.stdout.read_into(buffer)):
            received += buffer[:count]
        return bytes(received)

    code = "import sys; sys.stdout.buffer.write(bytes(range(256)) * 4096)"
    assert (yield from open_process(python_program(code), body)) == BIG


def test_writing_waits_until_the_program_reads() -> None:
    def body(process: Process) -> Coro[None]:
        with coro.move_on_after(0.01) as scope:
            yield from process.stdin.write(BIG)
        assert scope.cancelled_caught  # the pipe is full
        yield from coro.gather(drain(process), rest(process))

    def rest(process: Process) -> Coro[None]:
        yield from process.stdin.write(BIG)
        process.stdin.close()

    def drain(process: Process) -> Coro[None]:
        while (yield from process.stdout.read()):
            pass

    run_tidy(open_process(["cat"], body))


def test_pipe_that_is_always_ready_lets_other_tasks_run() -> Coro[None]:
    def turns(work: Callable[[], Coro[object]]) -> Coro[int]:
        """How often others run while `work` is done 100 times."""
        count = 0

        def others() -> Coro[None]:
            nonlocal count
            while True:
                yield from coro.checkpoint()
                count += 1

        def body(group: TaskGroup) -> Coro[int]:
            task = group.spawn(others())
            for _ in range(100):
                yield from work()
            task.cancel()
            return count

        return (yield from coro.task_group(body))

    def reading(process: Process) -> Coro[tuple[int, int]]:
        yield from process.stdout.read(1)
        buffer = bytearray(1)
        one = yield from turns(lambda: process.stdout.read(1))
        other = yield from turns(lambda: process.stdout.read_into(buffer))
        process.terminate()
        return one, other

    def writing(process: Process) -> Coro[int]:
        return (yield from turns(lambda: process.stdin.write(b"x")))

    assert all(count >= 5 for count in (yield from open_process(["yes"], reading)))
    assert (yield from open_process(["sh", "-c", "cat >/dev/null"], writing)) >= 5


def test_standard_error_can_be_a_pipe_of_its_own() -> Coro[None]:
    def body(process: Process) -> Coro[bytes]:
        return (yield from process.stderr.read_until(b"\n"))

    code = ["sh", "-c", "echo err >&2"]
    assert (yield from open_process(code, body, stderr=subprocess.PIPE)) == b"err\n"


@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr"])
def test_pipe_that_is_not_there_is_named(name: str) -> Coro[None]:
    def body(process: Process) -> Coro[None]:
        with pytest.raises(RuntimeError, match=f"no pipe to the process's {name}: start it with {name}=subproc"):
            getattr(process, name)
        yield from ()

    yield from open_process(["true"], body, stdin=None, stdout=None)


def test_writing_to_a_program_that_has_ended_is_an_error() -> Coro[None]:
    def body(process: Process) -> Coro[None]:
        yield from process.wait()
        with pytest.raises(BrokenPipeError):
            yield from process.stdin.write(b"text")

    yield from open_process(["true"], body)


@pytest.mark.parametrize("how", ["read", "write"])
def test_closing_a_pipe_ends_the_wait_on_it_and_refuses_later_ones(how: str) -> Coro[None]:
    def use(process: Process) -> Coro[object]:
        return process.stdout.read() if how == "read" else process.stdin.write(BIG)

    def body(process: Process) -> Coro[None]:
        def work(group: TaskGroup) -> Coro[None]:
            group.spawn(use(process), name="use")
            for _ in range(3):
                yield from coro.checkpoint()
            for _ in range(2):  # the second time nothing happens
                (process.stdout if how == "read" else process.stdin).close()

        with pytest.raises(coro.ClosedError, match=r"pipe, fd \d+ was closed while task 'use' waited for it"):
            yield from coro.task_group(work)
        with pytest.raises(coro.ClosedError):
            yield from use(process)
        process.terminate()

    yield from open_process(["sleep", "3600"], body)


def test_pipe_that_was_closed_before_its_first_use_says_so() -> Coro[None]:
    def body(process: Process) -> Coro[None]:
        process.close()
        for use in process.stdout.read(), process.stdout.read_into(bytearray(1)), process.stdin.write(b"text"):
            with pytest.raises(coro.ClosedError, match="the pipe is closed on this side"):
                yield from use

    yield from open_process(["cat"], body)


@on_every_selector
def test_pipes_and_ends_are_seen_by_every_selector(selector: type[selectors.BaseSelector]) -> None:
    def main() -> Coro[None]:
        assert (yield from run_process(["cat"], stdin=BIG)).stdout == BIG

    run_on(selector, main())


def test_text_as_input_is_refused() -> Coro[None]:
    with pytest.raises(TypeError, match="stdin is bytes, not str: encode it"):
        yield from coro.run_process(["cat"], stdin="text")  # type: ignore[arg-type]
