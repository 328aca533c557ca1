/* Places the class labels: next to the densest part of each class, covering as few points as
   possible and never overlapping. A label without room is left out until there is room. */

const LINE_HEIGHT = 20;
const DISTANCES = [10, 26, 44, 66]; /* pixels, on a map of this size or larger: */
const FULL_SIZE = 640;
const DIRECTIONS = [[1, 0], [-1, 0], [0, -1], [0, 1], [1, -1], [-1, -1], [1, 1], [-1, 1]];
const MAX_LABELS = 40;
const EDGE = 4;
const MISPLACED = 30; /* cost, in covered points, of being nearer to another class's densest part */

/* Returns [{ index, offsetX, offsetY, width }] for the labelled classes: pixels from the class's
   densest part to the left end of its label, at half height, and the label's width. A label keeps its `previous` place if it can. */
export function placeLabels(points, viewport, measureWidth, previous) {
  const previousByClass = new Map(previous.map((label) => [label.index, label]));
  const taken = [];
  const indices = classesInView(points, viewport);
  const anchors = indices.map((index) => anchorOf(points.classes[index], viewport));
  const size = Math.min(viewport.width, viewport.height, FULL_SIZE) / FULL_SIZE;
  return indices.flatMap((index, rank) => {
    const [x, y] = anchors[rank];
    const width = measureWidth(points.classes[index].label);
    const candidates = candidateOffsets(width, size, previousByClass.get(index));
    const boxes = candidates.map(([offsetX, offsetY]) => boxAt(x + offsetX, y + offsetY, width));
    let [best, least] = [-1, Infinity];
    boxes.forEach((box, at) => {
      if (!isInView(box, viewport) || taken.some((other) => overlap(box, other))) return;
      const cost = countCovered(box, points, viewport)
        + MISPLACED * countNearer(box, anchors, rank) + candidates[at][2];
      if (cost < least) [best, least] = [at, cost];
    });
    if (best < 0) return [];
    taken.push(boxes[best]);
    return [{ index, offsetX: candidates[best][0], offsetY: candidates[best][1], width }];
  });
}

/* The visible classes in view, the largest first. */
function classesInView({ classes, visible }, viewport) {
  const anchored = (index) => isInView(boxAt(...anchorOf(classes[index], viewport), 0), viewport);
  return [...classes.keys()]
    .filter((index) => visible[index] && anchored(index))
    .sort((a, b) => classes[b].images - classes[a].images)
    .slice(0, MAX_LABELS);
}

/* Offsets to try, each with its own cost. */
function candidateOffsets(width, size, previous) {
  const offsets = DISTANCES.flatMap((distance) => DIRECTIONS.map(([right, down]) => [
    right * (distance * size + width / 2) - width / 2,
    down * (distance * size + LINE_HEIGHT / 2),
    distance / 8,
  ]));
  return previous ? [[previous.offsetX, previous.offsetY, -3], ...offsets] : offsets;
}

const anchorOf = ({ x, y }, viewport) => [viewport.toPixelX(x), viewport.toPixelY(y)];

/* How many other classes' anchors are nearer to a box than its own. */
function countNearer({ left, top, right, bottom }, anchors, own) {
  const distance = ([x, y]) => Math.hypot(
    Math.max(left - x, 0, x - right), Math.max(top - y, 0, y - bottom));
  const least = distance(anchors[own]);
  return anchors.filter((anchor) => distance(anchor) < least).length;
}

const boxAt = (left, middle, width) => ({
  left, top: middle - LINE_HEIGHT / 2, right: left + width, bottom: middle + LINE_HEIGHT / 2,
});

const isInView = ({ left, top, right, bottom }, { width, height }) =>
  Math.min(left, top) >= EDGE && right <= width - EDGE && bottom <= height - EDGE;

const overlap = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;

function countCovered(box, points, viewport) {
  const [left, top] = viewport.toMap(box.left, box.top);
  const [right, bottom] = viewport.toMap(box.right, box.bottom);
  let count = 0;
  points.forEachIn({ left, top, right, bottom }, () => { count++; });
  return count;
}
