"""How a process ended, in words: what its exit status says, and what that most often means."""

import signal

_WORDS = {
    "SIGKILL": "was killed (SIGKILL), as happens for want of memory",
    "SIGBUS": "could not read a file that it had mapped (SIGBUS): the file was cut meanwhile, or its disk fails",
    "SIGSEGV": "crashed (SIGSEGV)",
    "SIGABRT": "was aborted by a library (SIGABRT)",
    "SIGFPE": "crashed in a division (SIGFPE)",
    "SIGILL": "met an instruction that this processor lacks (SIGILL; `workbench doctor` says for which it is compiled)",
    "SIGTERM": "was told to end (SIGTERM)",
    "SIGHUP": "lost its terminal (SIGHUP)",
    "SIGINT": "was interrupted (SIGINT)",
    "SIGXCPU": "used up its processor time (SIGXCPU; see ulimit -t)",
    "SIGXFSZ": "wrote a larger file than it may (SIGXFSZ; see ulimit -f)",
    "SIGSYS": "made a system call that is forbidden here (SIGSYS)",
}


def how_it_ended(status: int) -> str:
    """Say how a process ended, to be put behind its name; status as `subprocess` reports it, signals negative."""
    if status >= 0:
        return f"ended with exit code {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:  # a real-time signal
        name = f"signal {-status}"
    return _WORDS.get(name, f"was ended by {name}")
