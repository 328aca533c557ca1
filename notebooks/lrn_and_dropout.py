"""What response normalisation and dropout change in a trained network, for one picture.

`marimo edit notebooks/lrn_and_dropout.py` opens it; `python notebooks/lrn_and_dropout.py` only runs
it.
"""

import marimo

app = marimo.App(width="medium", app_title="What LRN and dropout change")


with app.setup:
    import marimo as mo
    import matplotlib.pyplot as plt
    import numpy as np
    import skimage.data
    from PIL import Image

    from model import load
    from model.network.switches import MAX_DROPOUT_SAMPLES, Switches
    from model.visualization.activations import trace_switched_activations
    from model.visualization.feature_maps import draw_maps
    from storage.pretrained import SHIPPED

    GREY, WARM = "#5c6670", "#c2571a"


@app.cell
def _():
    mo.md(r"""
    # What LRN and dropout change

    Two of AlexNet's ideas act *between* its layers. **Local response normalisation** (§3.3)
    divides each response by what the neighbouring kernels say at the same place, so that a loud
    kernel silences its neighbours. **Dropout** (§4.2) sets half of the neurons of fc6 and fc7 to
    zero, at random and anew for each training image, so that no neuron can rely on another.

    Both shaped the weights during training. Here the weights stay as they are and only the rule is
    changed: what does the *trained* network owe to it?
    """)
    return


@app.cell
def _():
    # Any weights file of this project: put the path of your own here.
    weights = SHIPPED.weights
    return (weights,)


@app.cell
def _():
    pictures = {
        "rocket": skimage.data.rocket,
        "cat": skimage.data.chelsea,
        "coffee": skimage.data.coffee,
        "astronaut": skimage.data.astronaut,
    }
    choice = mo.ui.dropdown([*pictures], value="cat", label="picture")
    choice
    return choice, pictures


@app.cell
def _(choice, pictures, weights):
    predictor = load(weights, device="cpu")
    square = predictor.make_square(Image.fromarray(pictures[choice.value]()))
    mo.hstack(
        [
            Image.fromarray(square),
            mo.md(
                f"These weights know {len(predictor.classes)} classes: "
                + ", ".join(one.label for one in predictor.classes[:20])
                + ("." if len(predictor.classes) <= 20 else ", …")
                + " Whatever the picture shows, they can only name one of these."
            ),
        ],
        justify="start",
        gap=2,
    )
    return predictor, square


@app.cell
def _(predictor, square):
    before = trace_switched_activations(predictor, square, Switches())
    plain = trace_switched_activations(predictor, square, Switches(lrn=False))
    return before, plain


@app.cell
def _(predictor):
    def compare_bars(was, now, names):
        """Draw the probabilities of the likeliest labels of two networks."""
        best = np.argsort(-np.maximum(was, now))[:5][::-1]
        figure, axes = plt.subplots(figsize=(7, 0.5 * len(best) + 0.9), layout="constrained")
        places = np.arange(len(best))
        for values, shift, colour, name in (
            (was, 0.2, GREY, names[0]),
            (now, -0.2, WARM, names[1]),
        ):
            axes.barh(places + shift, values[best], 0.36, color=colour, label=name)
        axes.set(xlim=(0, 1), xlabel="probability, centre crop")
        axes.set_yticks(places, [predictor.classes[i].label for i in best])
        axes.legend(frameon=False, loc="lower right")
        axes.spines[["top", "right"]].set_visible(False)
        return figure

    return (compare_bars,)


@app.cell
def _(before, compare_bars, plain):
    mo.vstack(
        [
            mo.md("## Without normalisation"),
            compare_bars(
                before.probabilities[0], plain.probabilities[0], ("as trained", "LRN off")
            ),
        ]
    )
    return


@app.cell
def _(before, plain):
    def find_layer(traced, name):
        """Return what a layer computes."""
        return next(one for one in traced.activations.layers if one.name == name)

    def show_maps(traced, name, largest):
        """Return the maps of the first tower of a layer, on white."""
        drawn = draw_maps(
            find_layer(traced, name).towers[0][:48], 12, scale=1, largest=largest
        ).convert("RGBA")
        ground = Image.new("RGB", drawn.size, "white")
        ground.paste(drawn, mask=drawn)
        return ground

    def measure_change(name):
        """Return the length of the difference over the length as trained."""
        pair = [
            np.concatenate([tower.ravel() for tower in find_layer(traced, name).towers])
            for traced in (before, plain)
        ]
        return float(np.linalg.norm(pair[1] - pair[0]) / np.linalg.norm(pair[0]))

    _maps = [one for one in before.activations.layers if one.layer.kind == "maps"]
    changes = {one.name: measure_change(one.name) for one in _maps}
    _second = _maps[1]
    mo.vstack(
        [
            mo.md(
                f"**{_maps[0].name}** comes before any normalisation and stays as it is. "
                f"**{_second.name}** gets what LRN would have held back. Its maps on GPU 1, as "
                "trained and without LRN, in the same ink:"
            ),
            mo.hstack(
                [show_maps(traced, _second.name, _second.largest) for traced in (before, plain)],
                justify="start",
                gap=2,
                wrap=True,
            ),
            mo.md(
                "How far each layer moves, the length of the difference over that as trained: "
                + ", ".join(f"{name} {change:.2f}" for name, change in changes.items())
                + "."
            ),
        ]
    )
    return (changes,)


@app.cell
def _():
    seed = mo.ui.slider(0, 20, value=0, label="seed of the neurons dropped", show_value=True)
    mo.vstack(
        [
            mo.md(f"""
    ## With dropout

    At test time every neuron takes part and its output is halved: the *mean* of all the thinned
    networks, roughly. What would single ones say? Here are {MAX_DROPOUT_SAMPLES} of them, each with
    another half of its neurons; a bar is the network as trained.
    """),
            seed,
        ]
    )
    return (seed,)


@app.cell
def _(predictor, seed, square):
    thinned = trace_switched_activations(
        predictor, square, Switches(dropout_samples=MAX_DROPOUT_SAMPLES, seed=seed.value)
    )
    return (thinned,)


@app.cell
def _(before, predictor, thinned):
    _was, _drawn = before.probabilities[0], thinned.probabilities
    _best = np.argsort(-np.maximum(_was, _drawn.mean(axis=0)))[:5][::-1]
    _figure, _axes = plt.subplots(figsize=(7, 0.5 * len(_best) + 0.9), layout="constrained")
    _places = np.arange(len(_best))
    _axes.barh(_places, _was[_best], 0.6, color=GREY, alpha=0.35)
    for _sample in _drawn:
        _axes.plot(_sample[_best], _places, "o", color=WARM, ms=5, alpha=0.6, mew=0)
    _axes.plot(_drawn.mean(axis=0)[_best], _places, "|", color=WARM, ms=22, mew=2)
    _axes.set(xlim=(0, 1), xlabel="probability; dots: thinned networks, line: their mean")
    _axes.set_yticks(_places, [predictor.classes[i].label for i in _best])
    _axes.spines[["top", "right"]].set_visible(False)
    _figure
    return


@app.cell
def _(before, thinned):
    agreeing = int((thinned.probabilities.argmax(axis=1) == before.probabilities[0].argmax()).sum())
    _spread = float(np.ptp(thinned.probabilities[:, before.probabilities[0].argmax()]))
    mo.md(f"""
    **{agreeing} of {len(thinned.probabilities)}** thinned networks name the same label as the
    whole; its probability ranges over {_spread:.0%}. Where they disagree, the network is unsure
    in a way that its one probability does not tell.

    ## To try

    - Choose a picture of something that the network knows, and one of something it does not: in
      which do the dots lie apart?
    - The page *Layers*, under *Switches*, does the same for a picture of your own, with other
      switches: a silent tower, tanh instead of ReLU, another crop.
    """)
    return (agreeing,)


if __name__ == "__main__":
    app.run()
