"""The process in which a question about a pair is worked on, started by workbench.jobs.inquiry.InquiryProcess."""

from workbench.jobs.inquiry import Inquiry, Refused, event_to_wire
from workbench.machine.child_process import serve

if __name__ == "__main__":
    from workbench.jobs.answering import answer

    serve(
        lambda job, send: answer(Inquiry.from_json(job), lambda event: send(event_to_wire(event))),
        lambda sentence: event_to_wire(Refused(sentence)),
    )
