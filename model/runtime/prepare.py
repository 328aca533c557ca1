"""Prepares weights for serving: `python -m model.runtime.prepare WEIGHTS DEVICE RUNTIME FOLDER`.

model/runtime/prepared.py starts it as a process of its own.
"""

import sys
from pathlib import Path

from model.predict import Predictor
from model.runtime.names import TORCH
from model.runtime.prepared import Record, locate_record, store_record
from model.weights.checkpoint import check_finite, load_weights
from model.weights.header import WeightsError


def main(words: list[str]) -> str | None:
    """Choose a runtime, store its graph and what was found; return what went wrong, if anything."""
    file, device, wish, folder = Path(words[0]), words[1], words[2], Path(words[3])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        place = locate_record(file, device, wish, folder)
        weights = load_weights(file)
        check_finite(weights)
        predictor = Predictor.from_weights(weights, device, wish)
        graph = None
        if predictor.choice.name != TORCH:
            # Not above: OpenVINO is optional.
            from model.runtime.graph_file import save_graphs
            from model.runtime.openvino_graph import BuiltGraphs

            built = BuiltGraphs(predictor.network, predictor.loaded.mean)
            graph = save_graphs(built, predictor.conv1, folder / f"{predictor.identity}.xml")
        record = Record(identity=predictor.identity, choice=predictor.choice, graph=graph)
        store_record(record, place)
    except (WeightsError, OSError) as error:
        return str(error)
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
