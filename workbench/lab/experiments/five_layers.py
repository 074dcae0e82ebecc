"""016: the layer chain over the first five layers."""

from dataclasses import replace

from kernels.errors import WorkbenchError
from workbench.lab.experiment import Experiment, Outcome, Plot, Settings
from workbench.lab.experiments.layers import ROWS, layer_chain, summary
from workbench.lab.subject import Subject
from workbench.lab.two_paths import CHOSEN_PATH

_LAYERS, _AGAIN = 5, 3
PUBLISHED = (0.00544, 0.00780, 0.00029, 0.00428, 0.00774)


def _run(settings: Settings, subject: Subject | None) -> Outcome:
    assert subject is not None
    if subject.layers < _LAYERS:
        raise WorkbenchError(f"lab 016 is about {_LAYERS} layers, and A has {subject.layers}; use lab layers")
    chain = layer_chain(settings, subject, _LAYERS)
    found = summary(settings, subject, chain)
    by_layer = {row["layer"]: row["rel"] for row in chain.series}
    again = by_layer.get(_AGAIN)
    over = by_layer[max(by_layer)] / again if again else None
    first, last = PUBLISHED[0], PUBLISHED[-1]
    note = (
        f"the published 1.8081× is {last:.3%} over {PUBLISHED[_AGAIN]:.3%}, the fifth layer over the fourth "
        f"({last / PUBLISHED[_AGAIN]:.2f}); over the first layer these five give {last / first:.2f}×"
    )
    return replace(found, value=over, figures={**found.figures, "over_first": found.value}, notes=(*found.notes, note))


EXPERIMENT = Experiment(
    id="016",
    word="five-layers",
    question="Does the difference grow over five layers of a real model?",
    claim="the chain stays bounded: last below 100, growth below 18, at most one layer skipped",
    shows="the relative difference in the fifth layer divided by that in the fourth, as the published 1.8081× is",
    hides="A quotient of two of five numbers that rise and fall; growth beside it divides by the first layer.",
    plot=Plot("layer", "rel", log=True),
    run=_run,
    parameters=(ROWS, CHOSEN_PATH),
    published="1.8081×",
    digits=lambda found: f"{found.value:.4f}×",
    on="model",
    both=True,
)
