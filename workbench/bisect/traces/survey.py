"""What is wrong at every stage of a trace, seen as a whole before any stage is blamed.

A trace of weights that were another rounding of the model's, and one that contradicts itself, blame nobody.

Such a trace differs from the stored model at every product, each time by what the rounding of that very weight costs
on that very input, which is known from the formats. Where the trace must be the coarser one, its format may be found by
rounding the model's weights likewise; else nothing is proved. If even lookups and additions are off, each by something
else, no stage can be blamed.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from kernels.graph import Values
from kernels.kinds.apart import ProductsApart
from kernels.kinds.elementwise import Add, AddBoth
from kernels.kinds.embed import Embed
from kernels.kinds.norm import Norm
from kernels.kinds.product import Product
from kernels.stages import Site
from kernels.weight import TensorType
from workbench.bisect.mistakes.mistake import units_off
from workbench.bisect.traces.diagnosis import cost_of_storage, question_of
from workbench.bisect.traces.misread import COLUMNS, column_factors, misread_columns, wrong_tensors
from workbench.bisect.traces.spans import Step
from workbench.bisect.traces.stages import Checked, Reader, recorded_stages
from workbench.bisect.traces.unnamed import UNNAMED
from workbench.bisect.verdict import Culprit, Verdict
from workbench.bisect.weights.check import row_chunks
from workbench.bisect.weights.steps import Stored
from workbench.cells.limit import LIMIT

_STORED = (Product, ProductsApart, Embed)  # kinds that another rounding of the weights changes
_EVEN = 3.0  # values spread evenly over a step lie within half of it by the root of a third
_LEAST, _MOST = 0.2, 2.0  # of the cost, in which a rounded weight may show
_SIGNATURE, _WITNESSED = 0.9, 0.5  # of all products must show it; and if the embedding does
_COARSEST, _SPREAD = 0.3, 4.0  # relative error of coarse weights, and times the median that one product may have
_ROUNDED = ("requantized", "dtype_truncated")  # causes that make no mistake where all weights have them
PART = 3.0  # times as much may a part of an end be off, of whose weights few take part
_CHAOS = 0.6  # of all norms and additions, of a trace that contradicts itself


@dataclass(slots=True)
class Survey:
    """What is wrong at every stage, gathered before any of them is blamed."""

    reader: Reader
    stages: list[Site] = field(default_factory=list)
    products: dict[Site, tuple[Site, ...]] = field(default_factory=dict)
    wrong: dict[Site, float] = field(default_factory=dict)
    in_cost: dict[Site, bool] = field(default_factory=dict)

    def see(self, stage: Checked) -> None:
        """Take note of a stage; a span is all the products that lie within."""
        sites = stage.span.stages if stage.spanned else (stage.site,)
        products = tuple(site for site in sites if isinstance(self.reader.at(site).kind, _STORED))
        if not stage.spanned:
            self.stages.append(stage.site)
        if products:
            self.products[stage.site] = products
        if stage.wrong:
            self.wrong[stage.site] = stage.relative
            if products:
                within_cost = _span_in_cost if stage.spanned else _in_cost
                self.in_cost[stage.site] = within_cost(self.reader, stage)

    @property
    def rounded(self) -> set[Site]:
        """Products that differ by the rounding of the model's own weights, if that is what the trace has in common."""
        explained = {site for site, within in self.in_cost.items() if within}
        return explained if self._common(explained) else set()

    @property
    def coarser(self) -> bool:
        """Whether all products differ alike and by more, as those of a copy with coarser weights."""
        sizes = [self.wrong[site] for site in self.products if site in self.wrong]
        if self.rounded or not self._common({site for site in self.products if site in self.wrong}):
            return False
        return float(np.median(sizes)) <= _COARSEST

    def _common(self, sites: set[Site]) -> bool:
        """Whether so many products cannot have it by chance; the embedding, which nothing else rounds, is a witness."""
        layers = self.reader.model.config.num_hidden_layers
        embedding = self.reader.graph.first[-1].site
        others = {site: parts for site, parts in self.products.items() if site != embedding}
        least = _WITNESSED if embedding in sites else _SIGNATURE
        exceptions = 0 if any(len(parts) > 1 for parts in others.values()) else 2  # a span has one that differs
        many = len(sites - {embedding}) >= max(1, min(least * len(others), len(others) - exceptions))
        return many and sum(map(len, others.values())) > layers

    def excuse(self, culprit: Culprit) -> bool:
        """Whether a product without any other mistake is only that of coarser weights."""
        if not self.coarser or culprit.site not in self.products or culprit.setting[:1] == (COLUMNS,):
            return False
        return culprit.cause in _ROUNDED or (culprit.cause in UNNAMED and self._like_others(culprit.site))

    def _like_others(self, site: Site) -> bool:
        """Whether a product is off by no more than those of a coarser copy are."""
        sizes = [self.wrong[other] for other in self.products if other in self.wrong]
        return self.wrong[site] <= min(_COARSEST, _SPREAD * float(np.median(sizes)))

    def misread_once(self, culprits: list[Culprit]) -> list[Culprit]:
        """The same with one culprit in the place of all whose weights have a type, where every such product is wrong.

        What an engine makes of a type is one mistake, whatever it looks like in each product.
        """
        merged, model = list(culprits), self.reader.model
        unnamed = [culprit for culprit in culprits if culprit.tensor is not None and culprit.cause in UNNAMED]
        for kind in dict.fromkeys(model.weight(str(culprit.tensor)).type for culprit in unnamed):
            alike = [culprit for culprit in unnamed if model.weight(str(culprit.tensor)).type == kind]
            stages = (self.reader.at(site).stage for site in self.products)
            products = (stage for stage in stages if isinstance(stage.kind, Product))
            sites = {s.site for s in products if any(model.weight(name).type == kind for name in s.weights)}
            if len(alike) > 1 and sites <= {culprit.site for culprit in alike}:
                first, where = alike[0], f"at all {len(alike)} stages with {kind.name} weights"
                columns = self._misread_columns({culprit.site for culprit in alike}, kind)
                if columns is not None:
                    first = replace(first, cause="corrupted_blocks", explanation=columns, setting=(COLUMNS, columns))
                first = replace(first, explanation=f"{first.explanation}, {where}")
                merged = [first if culprit is alike[0] else culprit for culprit in merged if culprit not in alike[1:]]
        return merged

    def _misread_columns(self, sites: set[Site], kind: TensorType) -> str | None:
        """What all products of a type tell together of the columns that are misread."""
        found = []
        for stage in recorded_stages(self.reader, sites):
            if stage.site in sites and not stage.behind_product:
                question = question_of(self.reader, stage)
                found += [column_factors(question, *tensor) for tensor in wrong_tensors(question)]
        return misread_columns([factors for factors in found if factors is not None and factors.type == kind])

    def contradicts_itself(self, culprits: list[Culprit]) -> bool:
        """Whether no stage can be blamed: most norms and plain additions are wrong and nothing reproduces them."""
        unknown = {culprit.site for culprit in culprits if culprit.cause == "unknown"}
        kinds = {site: self.reader.at(site).kind for site in self.stages}
        plain = [[site for site in self.stages if isinstance(kinds[site], kind)] for kind in (Add | AddBoth, Norm)]
        lost = [[site for site in sites if site in unknown] for sites in plain]
        return all(len(some) >= max(2, _CHAOS * len(all_)) for some, all_ in zip(lost, plain, strict=True))

    def verdict(self, excused: list[Culprit]) -> tuple[Verdict, str] | None:
        """The verdict where nothing else is wrong, and its reason; None if nothing was excused."""
        if self.rounded:
            return "quantization_only", self._rounding_note()
        if not excused:
            return None
        sizes = [self.wrong[site] for site in self.products if site in self.wrong]
        differs = (
            f"Every product differs, by {min(sizes):.2g} to {max(sizes):.2g} of its norm, as in a copy with coarser"
        )
        if all(culprit.cause in _ROUNDED for culprit in excused):
            words = sorted({culprit.explanation for culprit in excused})
            return "quantization_only", f"{differs} weights, which reproduce it: {', '.join(words)}."
        if all(len(self.products[site]) > 1 for site in self.products if site in self.wrong):
            return "undecided", self._ends_note(sizes)
        return "undecided", f"{differs} weights; bisect the trace against the very model that it was recorded from."

    def _ends_note(self, sizes: list[float]) -> str:
        """Of a trace that holds no product by itself."""
        ends = [site for site in self.products if site in self.wrong]
        how = f"{ends[0]} is {sizes[0]:.2g} of its norm off"
        if len(ends) > 1:
            how = f"{len(ends)} stages, {ends[0]} first, are {min(sizes):.2g} to {max(sizes):.2g} of their norms off"
        count = sum(len(self.products[site]) for site in ends)
        return (
            f"{how}: that is more than rounding, and none of the known mistakes that were tried makes it. Coarser "
            f"weights than the model's would, and so would a mistake in the run: as none of {count} products was "
            "recorded by itself, which of both it is, and where, cannot be said; record the stages of the layers."
        )

    def _rounding_note(self) -> str:
        model, sites = self.reader.model, self.rounded
        products = {product for site in sites for product in self.products[site]}
        stages = [self.reader.at(site).stage for site in products]
        types = sorted({model.weight(name).type.name for stage in stages for name in stage.weights})
        return (
            f"The trace is one of these weights before they were rounded to {', '.join(types)}: {len(sites)} of "
            f"{len(self.products)} products differ by what that rounding costs."
        )


def _in_cost(reader: Reader, stage: Checked) -> bool:
    """Whether a product is off by what the rounding of its weights costs, no more and not much less."""
    gap, cost = float(np.linalg.norm(stage.y.astype(np.float64) - stage.right)), storage_cost(reader, stage)
    return _LEAST * cost <= gap <= _MOST * cost + LIMIT * float(np.linalg.norm(stage.noise))


def _span_in_cost(reader: Reader, stage: Checked) -> bool:
    """Whether the end of a span is off by what the rounding of the weights within costs, everywhere."""
    cost = span_cost(reader, stage)
    left = stage.y.astype(np.float64) - stage.right
    least = _LEAST * LIMIT / _MOST * float(np.linalg.norm(cost))
    whole = float(np.sqrt(np.square(left / (stage.noise + cost)).mean()))
    return least <= float(np.linalg.norm(left)) and whole <= LIMIT >= units_off(left, stage.noise + PART * cost)


def span_cost(reader: Reader, stage: Checked) -> Values:
    """What the rounding of the weights within may cost at the end of a span, as many of it as LIMIT stands for."""

    def cost(step: Step) -> Values | None:
        inputs = {name: np.asarray(x, dtype=np.float64) for name, x in step.inputs.items()}
        found = cost_of_storage(step.at, inputs, len(step.y))
        return None if found is None else found / _EVEN**0.5

    return _MOST / LIMIT * stage.span.storage(reader, stage.rows, cost)


def storage_cost(reader: Reader, stage: Checked) -> float:
    """‖what the rounding of a product's weights to their formats may cost‖ on the recorded inputs.

    Every weight lies within half a step of its source, and the errors of different weights are independent.
    """
    if isinstance(stage.at.kind, ProductsApart):
        cost = cost_of_storage(
            stage.at, {role: np.asarray(x, np.float64) for role, x in stage.inputs.items()}, len(stage.y)
        )
        return float(np.linalg.norm(cost) / _EVEN**0.5) if cost is not None else 0.0
    weights = stage.at.weights()
    if isinstance(stage.at.kind, Embed):
        rows = stage.at.kind.part(Stored.of(weights[0], np.array(reader.tokens)).width)
        return stage.at.kind.scale * float(np.linalg.norm(rows.astype(np.float64)) / _EVEN**0.5)
    square = np.square(stage.inputs["x"], dtype=np.float64).sum(axis=0)
    steps = (Stored.of(weight, part).width for weight in weights for part in row_chunks(weight))
    energy = sum(float(square @ np.square(width, dtype=np.float64).sum(axis=0)) for width in steps)
    return float(np.sqrt(energy / _EVEN))
