/* The classes' names: beside where their images lie densest, over as few points as may be, and never
   over each other. A name without room is left out until there is. */

export const LINE = 20;
export const DOT = 14; /* room for the dot before a name */
const REACHES = [10, 26, 44, 66]; /* pixels, on a map of this size or larger: */
const FULL = 640;
const DIRECTIONS = [[1, 0], [-1, 0], [0, -1], [0, 1], [1, -1], [-1, -1], [1, 1], [-1, 1]];
const MOST = 40;
const EDGE = 4;
const STRAY = 30; /* how bad it is, in points covered, to stand nearer to another class's place */

/* From what is seen to [{ number, across, down, width }], pixels from the class's densest place to
   the left end of its name, at half height. A name stays where it was `before` if it can. */
export function placeNames(field, view, widthOf, before) {
  const stay = new Map(before.map((name) => [name.number, name]));
  const taken = [];
  const numbers = inSight(field, view);
  const anchors = numbers.map((number) => anchorOf(field.classes[number], view));
  const size = Math.min(view.width, view.height, FULL) / FULL;
  return numbers.flatMap((number, rank) => {
    const [x, y] = anchors[rank];
    const width = widthOf(field.classes[number].label) + DOT;
    const places = around(width, size, stay.get(number));
    const boxes = places.map(([across, down]) => boxAt(x + across, y + down, width));
    let [best, least] = [-1, Infinity];
    boxes.forEach((box, at) => {
      if (!within(box, view) || taken.some((other) => overlap(box, other))) return;
      const cost = under(box, field, view) + STRAY * nearer(box, anchors, rank) + places[at][2];
      if (cost < least) [best, least] = [at, cost];
    });
    if (best < 0) return [];
    taken.push(boxes[best]);
    return [{ number, across: places[best][0], down: places[best][1], width }];
  });
}

function inSight(field, view) {
  const seen = (class_) => within(boxAt(...anchorOf(class_, view), 0), view);
  return [...field.classes.keys()]
    .filter((number) => field.shown[number] && seen(field.classes[number]))
    .sort((a, b) => field.classes[b].images - field.classes[a].images)
    .slice(0, MOST);
}

/* Places to try, and how much worse than the best each is in itself. */
function around(width, size, before) {
  const places = REACHES.flatMap((reach) => DIRECTIONS.map(([right, low]) => [
    right * (reach * size + width / 2) - width / 2,
    low * (reach * size + LINE / 2),
    reach / 8,
  ]));
  return before ? [[before.across, before.down, -3], ...places] : places;
}

const anchorOf = ({ x, y }, view) => [view.across(x), view.down(y)];

/* How many classes' places are nearer to a box than its own one. */
function nearer({ left, top, right, bottom }, anchors, own) {
  const far = ([x, y]) => Math.hypot(
    Math.max(left - x, 0, x - right), Math.max(top - y, 0, y - bottom));
  const least = far(anchors[own]);
  return anchors.filter((anchor) => far(anchor) < least).length;
}

const boxAt = (left, middle, width) => ({
  left, top: middle - LINE / 2, right: left + width, bottom: middle + LINE / 2,
});

const within = ({ left, top, right, bottom }, view) =>
  Math.min(left, top) >= EDGE && right <= view.width - EDGE && bottom <= view.height - EDGE;

const overlap = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;

function under(box, field, view) {
  const [[left, top], [right, bottom]] = [view.at(box.left, box.top), view.at(box.right, box.bottom)];
  let count = 0;
  field.each({ left, top, right, bottom }, () => { count++; });
  return count;
}
