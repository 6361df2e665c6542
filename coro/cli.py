"""The command `coro`: `coro run MODULE[:NAME] [options of the program]`, and what looks into a program that runs.

NAME (`main` by default) is one of two things. A generator function without arguments is run as it is. A `Service` is
a program that listens on a TCP port: it gets `--host`, `--port`, `--workers` and `--grace`, every option also as an
environment variable or in a TOML file (`--config`), and, with several workers, a supervisor (`coro/supervisor.py`).

Exit codes: 2 for a wrong command line, 1 for what the user can mend elsewhere (`CommandError`: a port that is taken, a
server that does not answer), each with one line on stderr; 130 after Ctrl-C. Any other exception is a bug in the
program and shows its traceback.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import importlib
import inspect
import logging
import os
import resource
import signal
import ssl
import sys
import tomllib
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import coro
from coro import check, undriven
from coro.debug import client
from coro.debug import top as top_command
from coro.debug.attach import AttachError, attachable
from coro.debug.tools import ToolError, Tools
from coro.mistakes import user_frames
from coro.supervisor import supervise, until_orphaned

FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
# Objects made and not dropped until the collector looks for garbage in cycles. A thousand clients have more in flight
# than the 700 of CPython's default: it would look again and again, for a tenth of the CPU, and find nothing.
COLLECTION_THRESHOLD = 50_000
TRUE = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}

PS = "Show every task of a running program as a tree: what it waits for, and where. Without PID, list the programs."
TOP = "A table of a running program, each second: its task functions, what they cost and what they wait for."

CONTRAST = "One job written five ways (the folder contrast/), each measured on this machine: docs/contrast.md."
EXPLAIN = "Show on real frames what a switch of tasks saves and restores, and measure here what it costs."


class CommandError(coro.CoroError):
    """What keeps a program from doing its work, and the user can mend. Shown as one line; exit code 1."""


def _nothing(options: argparse.Namespace) -> coro.Coro[None]:
    yield from ()


@dataclass(frozen=True, kw_only=True)
class Service:
    """A program that listens on a TCP port, for `coro run`.

    `serve(options, listener)` runs in each worker until SIGTERM, on which it finishes what is in flight within
    `options.grace` seconds. `prepare(options)` runs once before that, when the port is ours (`options.port` tells
    which) and nothing is accepted yet. `add_options` declares the program's own options; a subcommand declares itself
    with `set_defaults(command=function)` and then `function(options)` is all that is run.
    """

    serve: Callable[[argparse.Namespace, coro.Listener], coro.Coro[None]]
    prepare: Callable[[argparse.Namespace], coro.Coro[None]] = _nothing
    add_options: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    description: str = ""
    prefix: str  # of the environment variables: `--max-size` is also PREFIX_MAX_SIZE
    port: int = 8080
    grace: float = 10.0  # seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (that of the process by default); the exit code."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        return _command_line(sys.argv[1:] if arguments is None else arguments)
    except (CommandError, AttachError, ToolError) as error:
        print(f"coro: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # a bug: its traceback, without our frames
        traceback.print_exception(error.with_traceback(user_frames(error.__traceback__)))
        return FAILED


class _Parser(argparse.ArgumentParser):
    """Reports a wrong command line in one line."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.allow_abbrev = False

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_USAGE, f"coro: {message} (see {self.prog} --help)\n")


def _command_line(arguments: Sequence[str]) -> int:
    parser = _Parser(prog="coro", description="Stackless coroutines from plain generators.")
    parser.add_argument("--version", action="version", version=f"coro {coro.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run a program", description="Run a generator function, or a service.")
    run.add_argument("--watchdog", type=_seconds, metavar="SECONDS", help="name what holds up the loop for longer")
    run.add_argument("--trace", metavar="FILE", help="record the run for ui.perfetto.dev or chrome://tracing")
    run.add_argument("--stats", action="store_true", help="tell at the end how many requests a second it can do")
    run.add_argument("--task-frames", action="store_true", help="have profilers see the tasks' names")
    run.add_argument("target", metavar="MODULE[:NAME]", help="what to run; NAME is `main` by default")
    rest = run.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="options of the program")
    rest.required = False  # as it is in later Pythons; else a missing MODULE is reported with this one
    checks = commands.add_parser("check", help="find calls that lack their `yield from`", description=check.__doc__)
    checks.formatter_class = argparse.RawDescriptionHelpFormatter
    checks.add_argument("paths", nargs="+", metavar="PATH", help="a Python file, or a folder of them")
    ps = commands.add_parser("ps", help="show the tasks of a running program", description=PS)
    ps.add_argument("pid", type=_positive, nargs="?", metavar="PID", help="a process (default: list those there are)")
    ps.add_argument("--json", action="store_true", help="as JSON")
    top = commands.add_parser("top", help="watch a running program", description=TOP)
    top.add_argument("pid", type=_positive, metavar="PID", help="a process")
    _add_contrast(commands)
    options = parser.parse_args(arguments)
    if options.command == "contrast":
        # By name: it stands beside coro, not below it, and compares it with what coro does not import.
        comparing = importlib.import_module("contrast.compare")
        if options.plot is not None:
            return int(comparing.plot(Path(options.plot), options.delay / 1000))
        return int(comparing.compare(options.connections, options.delay / 1000))
    if options.command == "explain":
        return int(importlib.import_module("contrast.explain").TOPICS[options.topic]())
    if options.command == "check":
        return check.main(options.paths)
    if options.command == "ps":
        if options.pid is None:
            return client.show_processes(options.json)
        return client.show_tree(options.pid, options.json)
    if options.command == "top":
        return top_command.watch(options.pid)
    undriven.install()
    faulthandler.register(signal.SIGQUIT, chain=True)  # Ctrl-\ says where a program hangs, whatever hangs, and ends it
    return _run(_load(options.target, run), f"coro run {options.target}", options)


def _add_contrast(commands: Any) -> None:
    contrast = commands.add_parser("contrast", help="measure one job, run five ways", description=CONTRAST)
    contrast.add_argument("--connections", type=_positive, default=1000, metavar="N", help="clients (%(default)s)")
    contrast.add_argument(
        "--delay", type=_seconds, default=20.0, metavar="MS", help="of each answer of a service (%(default)g ms)"
    )
    contrast.add_argument("--plot", metavar="FILE.svg", help="draw 10 to 10,000 connections instead; takes minutes")
    explain = commands.add_parser("explain", help="show how a switch works, and what it costs", description=EXPLAIN)
    explain.add_argument("topic", choices=("switch", "depth"), help="a switch of tasks; what deep calls cost")


def _run(program: Any, name: str, options: argparse.Namespace) -> int:
    tools = Tools(watchdog=options.watchdog, trace=options.trace, stats=options.stats, frames=options.task_frames)
    if isinstance(program, Service):
        return _run_service(program, service_options(program, name, options.rest), name, tools)
    _Parser(prog=name, description=inspect.getdoc(program)).parse_args(options.rest)
    with attachable(name):
        coro.run(tools.around(program()))
    return 0


def _load(target: str, parser: argparse.ArgumentParser) -> Any:
    """What MODULE[:NAME] names. The working directory is searched first, as Python does for scripts."""
    module_name, _, name = target.partition(":")
    name = name or "main"
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there; it is one that it imports that is missing
        parser.error(f"there is no module {error.name!r}, neither in {here} nor installed")
    except (ValueError, TypeError):
        parser.error(f"{module_name!r} is not the name of a module")
    program = getattr(module, name, None)
    if program is None:
        parser.error(f"module {module_name!r} has no {name!r}")
    if not isinstance(program, Service) and not inspect.isgeneratorfunction(program):
        parser.error(f"{module_name}:{name} is neither a generator function nor a coro.cli.Service")
    return program


# --- Services ---------------------------------------------------------------------------


def service_options(service: Service, name: str, arguments: Sequence[str]) -> argparse.Namespace:
    """The options given on the command line, else by environment variables, else in the file, else the defaults."""
    parser = _Parser(
        prog=name,
        description=service.description,
        epilog=f"Each option may also be an environment variable, as in {service.prefix}_PORT, or stand in the file.",
    )
    parser.add_argument("--host", type=_host, default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=_port, default=service.port, help="port to listen on (%(default)s; 0: any)")
    parser.add_argument("--workers", type=_positive, default=1, metavar="N", help="processes (%(default)s)")
    parser.add_argument(
        "--grace", type=_seconds, default=service.grace, metavar="SECONDS",
        help="time that requests in flight have to finish after SIGTERM (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--certificate", metavar="FILE", help="speak TLS, with this certificate chain (PEM)")
    parser.add_argument("--key", metavar="FILE", help="its private key (default: in the same file)")
    parser.add_argument("--config", metavar="FILE", help="a TOML file of options, as in: port = 80")
    service.add_options(parser)
    _check_flags(parser, arguments)
    _replace_defaults(parser, service.prefix, arguments)
    return parser.parse_args(arguments)


def _check_flags(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """Name a wrong flag before argparse takes the word behind it for a wrong subcommand."""
    known = {word for action in parser._actions for word in (*action.option_strings, *(action.choices or ()))}
    for word in arguments:
        if not word.startswith("--") and word in known:
            return  # a subcommand: the rest is its own
        if word.startswith("--") and word.partition("=")[0] not in known:
            parser.error(f"unrecognized argument {word}")


def _replace_defaults(parser: argparse.ArgumentParser, prefix: str, arguments: Sequence[str]) -> None:
    """Let the file, and before it the environment, replace defaults; argparse checks them like arguments."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--config", default=os.environ.get(f"{prefix}_CONFIG"))
    try:
        path = first.parse_known_args(arguments)[0].config
    except argparse.ArgumentError:  # --config at the very end, without a file
        path = None
    optional = [action for action in parser._actions if action.option_strings]
    actions = {action.option_strings[-1].removeprefix("--"): action for action in optional}
    del actions["help"], actions["config"]
    config = {} if path is None else _read_config(parser, path)
    for name in config:
        if name not in actions:
            parser.error(f"{path}: there is no option {name!r}")
    for name, action in actions.items():
        variable = f"{prefix}_{name.replace('-', '_').upper()}"
        value = os.environ.get(variable)
        source = variable if value is not None else f"{path}: {name!r}"
        value = config.get(name) if value is None else value
        if value is None:
            continue
        if action.nargs == 0:  # a flag: `store_true` or `store_false`
            given = TRUE.get(value.lower())
            if given is None:
                parser.error(f"{source} must be 1 or 0, not {value!r}")
            action.default = action.const if given else not action.const
        else:
            action.default = value


def _read_config(parser: argparse.ArgumentParser, path: str) -> dict[str, str]:
    """The options in a TOML file, as they would be written on a command line."""
    try:
        with open(path, "rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        parser.error(f"cannot read {path}: {error.strerror}")
    except ValueError as error:  # not TOML, not UTF-8
        parser.error(f"{path}: {error}")
    for name, value in values.items():
        if not isinstance(value, str | int | float):
            parser.error(f"{path}: {name!r} must be a string, a number, or true or false")
    return {name: str(value) for name, value in values.items()}


def _run_service(service: Service, options: argparse.Namespace, name: str, tools: Tools) -> int:
    if hasattr(options, "command"):
        coro.run(options.command(options))
        return 0
    with attachable(name), ExitStack() as stack:
        listeners = [stack.enter_context(closing(listener)) for listener in _listen(options)]
        options.port = listeners[0].port
        _raise_descriptor_limit()
        gc.set_threshold(COLLECTION_THRESHOLD)
        if options.workers == 1:
            coro.run(service.prepare(options))
            coro.run(tools.around(service.serve(options, listeners[0])))
            return 0

        def prepare() -> int:
            return _exit_code(service.prepare(options))

        def serve(number: int, lifeline: int) -> int:
            with attachable(name, supervisor=os.getppid(), worker=number):
                work = replace(tools, worker=number).around(service.serve(options, listeners[number]))
                return _exit_code(until_orphaned(work, lifeline))

        return supervise(prepare, serve, listeners)


def _listen(options: argparse.Namespace) -> list[coro.Listener]:
    """A listener for each worker. All of them share the port, and the kernel spreads the connections."""
    tls = _tls(options)
    try:
        first = coro.listen(options.host, options.port, tls=tls)
        if options.workers == 1:
            return [first]
        first.close()  # so far only to see that nobody else has the port, whether they would share it or not
        listeners = [coro.listen(options.host, first.port, reuse_port=True, tls=tls)]
        while len(listeners) < options.workers:
            listeners.append(coro.listen(options.host, first.port, reuse_port=True, tls=tls))
        return listeners
    except OSError as error:
        raise CommandError(error.strerror or str(error)) from None


def _tls(options: argparse.Namespace) -> ssl.SSLContext | None:
    if options.certificate is None:
        if options.key is not None:
            raise CommandError("--key needs the --certificate that it belongs to")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(options.certificate, options.key)
    except OSError as error:  # ssl.SSLError is one
        files = options.certificate if options.key is None else f"{options.certificate} and {options.key}"
        raise CommandError(f"cannot serve TLS with {files}: {error.strerror or error}") from None
    return context


def _raise_descriptor_limit() -> None:
    """Each connection is a descriptor: allow as many as the system does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _exit_code(work: coro.Coro[None]) -> int:
    """Run one process's part of the program to its end; the exit code."""
    try:
        coro.run(work)
        return 0
    except (CommandError, ToolError) as error:
        print(f"coro: {error}", file=sys.stderr)
        return FAILED
    except (KeyboardInterrupt, coro.TaskCancelled):
        return INTERRUPTED
    except Exception:
        logging.getLogger("coro").exception("a worker failed")
        return FAILED


def _host(text: str) -> str:
    if not text:  # would be every address of the machine
        raise argparse.ArgumentTypeError("'' is no address; 0.0.0.0 is every address of this machine")
    return text


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port number")
    return int(text)


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 <= (seconds := float(text)) < float("inf"):
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
