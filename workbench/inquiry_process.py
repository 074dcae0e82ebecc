"""The process in which a question about a pair is worked on, started by workbench.inquiry.InquiryProcess."""

from workbench.child_process import serve
from workbench.inquiry import Inquiry, Refused, event_to_wire

if __name__ == "__main__":
    from workbench.bisect.inquire import answer

    serve(
        lambda job, send: answer(Inquiry.from_json(job), lambda event: send(event_to_wire(event))),
        lambda sentence: event_to_wire(Refused(sentence)),
    )
