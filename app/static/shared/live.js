/* Live updates: asks for the page again every few seconds and replaces the parts that changed. The
   pages work without this file. */

export const REPLACED = "part-replaced";
const UPDATE_INTERVAL = 5000;
const PARTS = "[data-part]";
const shownParts = new Map();

document.querySelectorAll(PARTS).forEach((part) => shownParts.set(part.dataset.part, part.outerHTML));
followPage();

function followPage() {
  const line = document.querySelector("[data-live-updates]");
  if (!line) return;
  const status = line.querySelector("[data-live-status]");
  const pause = line.querySelector("[data-pause]");
  const address = window.location.href.replace(/#.*$/, "");
  let etag = null;
  let timer = null;
  let paused = false;

  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? "Resume" : "Pause";
    next();
  });
  document.addEventListener("visibilitychange", () => next(0));
  next(0);

  function next(after = UPDATE_INTERVAL) {
    clearTimeout(timer);
    const live = document.querySelector("[data-live]") !== null;
    line.hidden = !live;
    pause.hidden = !live;
    if (!live) return;
    status.textContent = paused ? "Live updates are paused." : "Updates every 5 seconds.";
    if (!paused && !document.hidden) timer = setTimeout(update, after);
  }

  async function update() {
    try {
      const answer = await fetch(address, {
        cache: "no-store",
        headers: etag ? { "If-None-Match": etag } : {},
      });
      if (answer.status === 404) {
        if (leadOn()) return;
        line.hidden = false;
        pause.hidden = true;
        status.textContent = "This has been deleted; the page shows its last known state.";
        return;
      }
      if (answer.ok) {
        etag = answer.headers.get("ETag");
        replaceChangedParts(new DOMParser().parseFromString(await answer.text(), "text/html"));
      } else if (answer.status !== 304) {
        throw new Error(`${answer.status}`);
      }
      next();
    } catch {
      next();
      status.textContent = "The server is not responding; trying again.";
    }
  }
}

/* Replace only what has changed, so that nothing flickers and readers keep their place. */
function replaceChangedParts(fresh) {
  for (const part of document.querySelectorAll(PARTS)) {
    const name = part.dataset.part;
    const other = fresh.querySelector(`[data-part="${name}"]`);
    if (!other && leadOn()) return;
    if (!other || other.outerHTML === shownParts.get(name)) continue;
    shownParts.set(name, other.outerHTML);
    if (other.dataset.announce && other.dataset.announce !== part.dataset.announce) announce(other.dataset.announce);
    const restore = captureState(part);
    part.replaceWith(other);
    other.dispatchEvent(new Event(REPLACED, { bubbles: true }));
    restore(other);
    other.querySelectorAll("[data-copy]").forEach((button) => window.prepareCopy?.(button));
  }
}

/* Return a function that restores what is open, checked, selected and focused. */
function captureState(part) {
  const open = [...part.querySelectorAll("details[open]")].map((one) => one.id);
  const checked = [...part.querySelectorAll("input:checked")].map((one) => one.value);
  const epoch = part.querySelector("input[type=range]")?.value;
  const atEnd = epoch !== undefined && epoch === part.querySelector("input[type=range]").max;
  const focused = [...part.querySelectorAll("a, input, summary, [tabindex]")].indexOf(document.activeElement);
  return (other) => {
    for (const one of other.querySelectorAll("details")) one.open = open.includes(one.id);
    for (const one of other.querySelectorAll("input[type=checkbox]")) one.checked = checked.includes(one.value);
    const range = other.querySelector("input[type=range]");
    if (range && epoch !== undefined && !atEnd) {
      range.value = epoch;
      range.dispatchEvent(new Event("input"));
    }
    if (focused >= 0) other.querySelectorAll("a, input, summary, [tabindex]")[focused]?.focus({ preventScroll: true });
  };
}

function announce(news) {
  const line = document.querySelector("[data-announcement]");
  if (line) line.textContent = news;
}

/* Load the page that takes this one's place, where this one only waits for it. */
function leadOn() {
  const waits = document.querySelector("[data-leads-on]") !== null;
  if (waits) window.location.reload();
  return waits;
}
