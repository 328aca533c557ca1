"""Networks as their authors defined them: the layer and parameter files of cuda-convnet.

A layer file has a section per layer, which names the layers that it reads; a parameter file has,
by the same names, learning rates, momenta, weight decays, and the parameters of normalisation.
Both are described in cuda-convnet's documentation (LayerParams); the files of 2012 add dropout
(`hs`) and `minDiv`, and write a network of two GPUs as two columns of layers.

Here the sections are put in order; model/formats/cuda_convnet_layers.py makes layers of them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from model.formats.cfg_file import DefinitionError, Section, read_cfg
from model.formats.cuda_convnet_layers import Definition, NetworkBuilder, Step
from model.network.config import TOWERS


def read_definition(layer_file: Path, parameter_file: Path, *, side: int, crop: int) -> Definition:
    """Read the files that define a network.

    side, crop: of the square images and of what the network sees of them, in pixels; the files do
    not say it. Raises DefinitionError, naming file, line and reason, for whatever is not supported.
    """
    sections, parameters = read_cfg(layer_file), read_cfg(parameter_file)
    steps = order_sections(sections, parameters, layer_file)
    builder = NetworkBuilder(parameters, parameter_file, crop)
    for step in steps:
        builder.add_step(step)
    return builder.finish(steps[-1].sections[0], side=side, crop=crop)


def order_sections(
    sections: Mapping[str, Section], parameters: Mapping[str, Section], file: Path
) -> list[Step]:
    """Put the sections between the image and the softmax in the order in which they are computed.

    Raises DefinitionError for a network that is not a row of layers, in one column or two.
    """
    kinds = {name: section.text("type") for name, section in sections.items()}
    costs = [sections[name] for name, kind in kinds.items() if kind.startswith("cost.")]
    softmaxes = [name for name, kind in kinds.items() if kind == "softmax"]
    images = [
        name
        for name, kind in kinds.items()
        if kind == "data" and sections[name].whole("dataIdx") == 0
    ]
    if len(costs) != 1 or len(softmaxes) != 1 or len(images) != 1:
        raise DefinitionError(
            f"{file}: a network has one image (type=data, dataIdx=0), one softmax and one cost; "
            f"here are {len(images)}, {len(softmaxes)} and {len(costs)}"
        )
    (cost,), (softmax,) = costs, softmaxes
    check_cost(cost, softmax, sections, parameters)
    outside = {*softmaxes, cost.name, *(n for n, kind in kinds.items() if kind == "data")}
    rest = {name: section for name, section in sections.items() if name not in outside}
    steps: list[Step] = []
    current: tuple[str, ...] = (images[0],)
    while rest:
        ready = [one for one in rest.values() if set(one.words("inputs")) <= set(current)]
        if not ready:
            first = next(iter(rest.values()))
            raise first.error(
                f"reads {first.text('inputs')}, not just what is computed before it: only layers "
                "that follow one another, in one or two columns, are supported",
                "inputs",
            )
        steps.append(make_step(ready, current))
        current = tuple(section.name for section in steps[-1].sections)
        rest = {name: section for name, section in rest.items() if name not in current}
    if sections[softmax].words("inputs") != list(current):
        raise sections[softmax].error(f"must read the last layer, {', '.join(current)}", "inputs")
    return steps


def check_cost(
    cost: Section,
    softmax: str,
    sections: Mapping[str, Section],
    parameters: Mapping[str, Section],
) -> None:
    """Raise DefinitionError unless the cost is the paper's: logistic regression, weighted by 1."""
    if cost.text("type") != "cost.logreg":
        raise cost.error(f"is of the type {cost.text('type')}; supported is cost.logreg", "type")
    reads = cost.words("inputs")
    labels = sections.get(reads[0])
    if len(reads) != 2 or reads[1] != softmax or labels is None or labels.text("type") != "data":
        raise cost.error("must read the labels and the softmax", "inputs")
    cost.ignore("gpu")
    sections[softmax].ignore("gpu", "inputs")
    for section in (cost, sections[softmax]):
        section.finish()
    if cost.name in parameters:
        parameters[cost.name].require("coeff", 1, "another weight of the cost is not supported")


def make_step(ready: Sequence[Section], current: Sequence[str]) -> Step:
    """Make a step of the sections that read `current` and nothing else. Raises DefinitionError."""
    if len(ready) > TOWERS:
        raise ready[TOWERS].error("is a third column; two at most are supported")
    reads = [tuple(section.words("inputs")) for section in ready]
    if all(len(one) == len(current) == len(set(one)) for one in reads):
        return Step(tuple(ready), "one" if len(current) == 1 else "both")
    if len(ready) == len(current) and all(len(one) == 1 for one in reads):
        by_input = {one[0]: section for one, section in zip(reads, ready, strict=True)}
        if len(by_input) == len(current):
            return Step(tuple(by_input[name] for name in current), "own")
    raise ready[0].error(
        f"reads {ready[0].text('inputs')} of {', '.join(current)}: two columns must go on side by "
        "side, or both be read",
        "inputs",
    )
