"""What happens when a worker thread fails: one sentence to the user."""

from textual.app import App
from textual.message_pump import MessagePump
from textual.worker import Worker, WorkerState

from kernels.errors import WorkbenchError
from store.text import printable


class ReportsWorkerErrors(MessagePump):
    """Mix-in for whatever runs workers."""

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """Say in a sentence what a worker could not do."""
        if event.state is WorkerState.ERROR and event.worker.error is not None:
            complain(self.app, event.worker.error)


def complain(app: App[int], error: BaseException) -> None:
    """Show an error: the sentence of our own, kind and message of any other."""
    sentence = str(error) if isinstance(error, WorkbenchError) else f"{type(error).__name__}: {error}"
    app.notify(printable(sentence, 400), severity="error", timeout=15, markup=False)
