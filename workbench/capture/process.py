"""The process in which a capture runs, started by workbench.capture.job.CaptureProcess."""

from workbench.capture.job import CaptureJob, Failed, event_to_wire
from workbench.capture.lockstep import capture
from workbench.machine.child_process import serve

if __name__ == "__main__":
    serve(
        lambda job, send: capture(CaptureJob.from_json(job), lambda event: send(event_to_wire(event))),
        lambda sentence: event_to_wire(Failed(sentence)),
    )
