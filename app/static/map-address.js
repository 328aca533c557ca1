/* What the address says of the map, so that a reload, a way back or a link shows the same. */

const SETTLED = 300; /* milliseconds: browsers refuse an address that changes all the time */
let timer;

export function read() {
  const asked = new URLSearchParams(location.search);
  const numbers = (name, count) => {
    const text = asked.get(name);
    const found = text ? text.split(",").map(Number) : [];
    return found.every(Number.isFinite) && (!count || found.length === count) ? found : [];
  };
  const [at, region] = [numbers("at", 3), numbers("region", 4)];
  const only = asked.has("show") ? new Set(numbers("show")) : null;
  const hidden = new Set(numbers("hide"));
  return {
    shown: (id) => (only ? only.has(id) : !hidden.has(id)),
    at: at.length ? at : null,
    region: region.length ? regionOf(region) : null,
  };
}

const regionOf = ([left, top, right, bottom]) => ({ left, top, right, bottom });

export function write(view, region, legend) {
  clearTimeout(timer);
  timer = setTimeout(() => {
    const parts = [...classes(legend)];
    const { x, y, zoom } = view;
    if (zoom !== 1 || x !== view.scale / 2 || y !== view.scale / 2) {
      parts.push(`at=${Math.round(x)},${Math.round(y)},${Number(zoom.toFixed(2))}`);
    }
    if (region) parts.push(`region=${[region.left, region.top, region.right, region.bottom].join(",")}`);
    const search = parts.length ? `?${parts.join("&")}` : "";
    if (search !== location.search) history.replaceState(history.state, "", location.pathname + search);
  }, SETTLED);
}

/* The shorter of the two lists. */
function classes(legend) {
  const [shown, hidden] = [legend.ids(true), legend.ids(false)];
  if (!hidden.length) return [];
  return shown.length < hidden.length ? [`show=${shown.join(",")}`] : [`hide=${hidden.join(",")}`];
}
