/* The state of the map in the URL, so that reloading, going back or sharing a link restores it. */

const DELAY = 300; /* milliseconds; browsers throttle frequent URL changes */
let timer;

export function readUrlState() {
  const params = new URLSearchParams(location.search);
  const numbers = (name, count) => {
    const text = params.get(name);
    const values = text ? text.split(",").map(Number) : [];
    return values.every(Number.isFinite) && (!count || values.length === count) ? values : [];
  };
  const [at, region] = [numbers("at", 3), numbers("region", 4)];
  const shown = params.has("show") ? new Set(numbers("show")) : null;
  const hidden = new Set(numbers("hide"));
  return {
    isVisible: (id) => (shown ? shown.has(id) : !hidden.has(id)),
    at: at.length ? at : null,
    region: region.length ? toRegion(region) : null,
    label: params.get("label"),
    guess: params.get("guess"),
    colouring: params.get("colour"),
  };
}

const toRegion = ([left, top, right, bottom]) => ({ left, top, right, bottom });

/* choices: what else is chosen, by the name of its parameter; empty where nothing is. */
export function writeUrlState(viewport, region, legend, choices) {
  clearTimeout(timer);
  timer = setTimeout(() => {
    const parts = [...classParams(legend)];
    const { x, y, zoom, scale } = viewport;
    if (zoom !== 1 || x !== scale / 2 || y !== scale / 2) {
      parts.push(`at=${Math.round(x)},${Math.round(y)},${Number(zoom.toFixed(2))}`);
    }
    if (region) parts.push(`region=${[region.left, region.top, region.right, region.bottom].join(",")}`);
    Object.entries(choices).forEach(([name, value]) => { if (value) parts.push(`${name}=${value}`); });
    const search = parts.length ? `?${parts.join("&")}` : "";
    if (search !== location.search) history.replaceState(history.state, "", location.pathname + search);
  }, DELAY);
}

/* Name the visible or the hidden classes, whichever list is shorter. */
function classParams(legend) {
  const [shown, hidden] = [legend.ids(true), legend.ids(false)];
  if (!hidden.length) return [];
  return shown.length < hidden.length ? [`show=${shown.join(",")}`] : [`hide=${hidden.join(",")}`];
}
