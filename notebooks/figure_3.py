"""Figure 3 of the paper: what conv1 has learned, and how its two towers differ.

`marimo edit notebooks/figure_3.py` opens it; `python notebooks/figure_3.py` only runs it.
"""

import marimo

app = marimo.App(width="medium", app_title="Figure 3: the kernels of conv1")


with app.setup:
    import marimo as mo
    import matplotlib.pyplot as plt
    import numpy as np
    from PIL import Image

    from model import load
    from model.visualization.kernels import (
        compare_selectivities,
        compute_colour_selectivity,
        compute_low_frequency_share,
        draw_kernels,
        find_noise_share,
        split_towers,
    )
    from storage.pretrained import SHIPPED

    GREY, WARM = "#5c6670", "#c2571a"  # GPU 1 and GPU 2, as everywhere in this project


@app.cell
def _():
    mo.md(r"""
    # Figure 3: the kernels of conv1

    The first layer of AlexNet looks at the image through windows of 11 × 11 pixels. Each of its 96
    kernels is itself such a window of red, green and blue weights, so it can be shown as a picture:
    the picture to which it responds most. Nobody drew them; they are what was left of random
    numbers after training.

    In 2012 one GPU could not hold the network. It was cut into two halves, *towers*, which meet
    only in some layers. The paper reports (§6.1, Figure 3) that the towers specialised: "the
    kernels on GPU 1 are largely color-agnostic, while the kernels on GPU 2 are largely
    color-specific", in every run, whatever the random start. Here we look, measure, and test
    whether it is chance.
    """)
    return


@app.cell
def _():
    # Any weights file of this project: put the path of your own here.
    weights = SHIPPED.weights
    return (weights,)


@app.cell
def _(weights):
    predictor = load(weights, device="cpu")
    towers = split_towers(predictor.conv1, predictor.config.towers)
    return predictor, towers


@app.cell
def _(predictor, towers):
    def show_tower(kernels, number):
        """Return the kernels on the grey that stands for zero, under their tower's name."""
        drawn = draw_kernels(kernels)
        ground = Image.new("RGB", drawn.size, (128, 128, 128))
        ground.paste(drawn, mask=drawn)
        return mo.vstack([mo.md(f"**GPU {number}**: {len(kernels)} kernels"), ground])

    mo.vstack(
        [
            mo.md(f"These weights know {len(predictor.classes)} classes. Their first layer:"),
            mo.hstack(
                [show_tower(kernels, number) for number, kernels in enumerate(towers, 1)],
                justify="start",
                gap=2,
            ),
            mo.md(
                "Mid-grey is a weight of zero; each kernel is scaled by its own largest weight, "
                "so faint ones show their form too. Look for edges at every angle, for fine and "
                "coarse gratings, and for blobs of colour."
            ),
        ]
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## How much of a kernel is colour?

    If a kernel's red, green and blue weights are equal everywhere, it cannot tell colours apart.
    So split its energy $\sum w^2$ into the part along grey, $(1, 1, 1)/\sqrt 3$, at each
    position, and the rest. The rest's share is the kernel's **colour selectivity**: 0 for a
    black-and-white kernel, 1 for one that sees nothing but differences of colour.
    """)
    return


@app.cell
def _(towers):
    selectivities = [compute_colour_selectivity(kernels) for kernels in towers]

    figure, axes = plt.subplots(figsize=(7, 2.6), layout="constrained")
    for _number, (_values, _colour) in enumerate(zip(selectivities, (GREY, WARM), strict=False), 1):
        _name = f"GPU {_number}, mean {_values.mean():.2f}"
        axes.plot(
            np.sort(_values), np.linspace(0, 1, len(_values)), color=_colour, lw=2, label=_name
        )
    axes.set(xlabel="colour selectivity", ylabel="share of kernels below", xlim=(0, 1))
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    figure
    return (selectivities,)


@app.cell
def _():
    splits = mo.ui.slider(100, 5000, step=100, value=1000, label="random splits", show_value=True)
    mo.vstack(
        [
            mo.md(r"""
    ## Is it chance?

    Suppose the towers did *not* differ: then it would not matter which kernel went to which GPU.
    So shuffle all kernels into two new halves, many times, and see how often the halves' means
    are as far apart as those of the real towers. That share is the p-value of a **permutation
    test**.
    """),
            splits,
        ]
    )
    return (splits,)


@app.cell
def _(selectivities, splits):
    def draw_differences(first, second, count):
        """Return the difference of means for `count` random splits: float64 [count]."""
        pooled, random = np.concatenate([first, second]), np.random.default_rng(2012)
        shuffled = random.permuted(np.tile(pooled, (count, 1)), axis=1)
        return shuffled[:, len(first) :].mean(axis=1) - shuffled[:, : len(first)].mean(axis=1)

    if len(selectivities) == 2:
        _actual = selectivities[1].mean() - selectivities[0].mean()
        _figure, _axes = plt.subplots(figsize=(7, 2.4), layout="constrained")
        _axes.hist(draw_differences(*selectivities, splits.value), bins=40, color="#d3cdc0")
        _axes.axvline(_actual, color=WARM, lw=2)
        _axes.set(xlabel="GPU 2's mean minus GPU 1's, in random halves; the line: in the towers")
        _axes.spines[["top", "right", "left"]].set_visible(False)
        _axes.set_yticks([])
        _shown = _figure
    else:
        _shown = mo.md("This network has one tower, so there is nothing to compare.")
    _shown
    return


@app.cell
def _(selectivities):
    contrast = compare_selectivities(*selectivities) if len(selectivities) == 2 else None
    if contrast is None:
        _said = ""
    else:
        _verdict = (
            "That may well be chance: with so few images, or so short a training, the towers have "
            "not specialised."
            if contrast.by_chance
            else "That is hardly chance: the towers have specialised, as in the paper."
        )
        _said = (
            f"The means differ by **{contrast.difference:+.3f}**; of {contrast.splits:,} random "
            f"splits {contrast.as_extreme:,} differ at least as much, so **p = {contrast.p:.4f}**. "
            f"{_verdict}"
        )
    mo.md(_said)
    return (contrast,)


@app.cell
def _(predictor):
    learned = compute_low_frequency_share(predictor.conv1)
    noise = find_noise_share(*predictor.conv1.shape[2:])
    mo.md(f"""
    ## Has it learned at all?

    Before training, a kernel is noise, and noise has the same energy at all frequencies: a share
    of {noise:.0%} of it lies below a quarter of a cycle per pixel. Photographs have most of
    theirs there, and so have kernels that have learned from them. Here the share is
    **{learned:.0%}**.

    ## To try

    - Set `weights` to a run of your own, `var/runs/…/weights.safetensors`, or to weights that
      were imported with `flask weights import imagenet`: are their kernels smoother? Do the
      towers differ?
    - Watch the kernels form: a run keeps conv1 by epoch, and the page *Training* shows them.
    """)
    return learned, noise


if __name__ == "__main__":
    app.run()
