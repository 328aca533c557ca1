/* The pages work without this file: it follows a run while it goes on, reads curves by pointing,
   slides through conv1, and says how many runs are ticked. */

const EVERY = 5000;
const PARTS = "[data-part]";
const seen = new Map();

function prepare(within) {
  within.querySelectorAll(".plot").forEach(readByPointing);
  within.querySelectorAll("[data-slide]").forEach(slide);
}

document.querySelectorAll(PARTS).forEach((part) => seen.set(part.dataset.part, part.outerHTML));
prepare(document);
prepareTicks();
follow();

/* Following */

function follow() {
  const line = document.querySelector("[data-following]");
  if (!line) return;
  const how = line.querySelector("[data-how]");
  const pause = line.querySelector("[data-pause]");
  const address = window.location.href.replace(/#.*$/, "");
  let etag = null;
  let timer = null;
  let paused = false;

  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? "Go on" : "Pause";
    next();
  });
  document.addEventListener("visibilitychange", () => next(0));
  next(0);

  function next(after = EVERY) {
    clearTimeout(timer);
    const live = document.querySelector("[data-live]") !== null;
    line.hidden = !live;
    pause.hidden = !live;
    if (!live) return;
    how.textContent = paused ? "Following has been paused." : "Follows the run as it goes on.";
    if (!paused && !document.hidden) timer = setTimeout(look, after);
  }

  async function look() {
    try {
      const answer = await fetch(address, {
        cache: "no-store",
        headers: etag ? { "If-None-Match": etag } : {},
      });
      if (answer.status === 404) {
        line.hidden = false;
        pause.hidden = true;
        how.textContent = "The run has been deleted; this is what it was.";
        return;
      }
      if (answer.ok) {
        etag = answer.headers.get("ETag");
        exchange(new DOMParser().parseFromString(await answer.text(), "text/html"));
      } else if (answer.status !== 304) {
        throw new Error(`${answer.status}`);
      }
      next();
    } catch {
      next();
      how.textContent = "The server does not answer; trying again.";
    }
  }
}

/* Only what has changed is exchanged, so that nothing flickers and nobody loses their place. */
function exchange(fresh) {
  for (const part of document.querySelectorAll(PARTS)) {
    const name = part.dataset.part;
    const other = fresh.querySelector(`[data-part="${name}"]`);
    if (!other || other.outerHTML === seen.get(name)) continue;
    seen.set(name, other.outerHTML);
    if (other.dataset.said && other.dataset.said !== part.dataset.said) tell(other.dataset.said);
    const place = remember(part);
    part.replaceWith(other);
    prepare(other);
    place(other);
    other.querySelectorAll("[data-copy]").forEach((button) => window.prepareCopy?.(button));
  }
}

/* What the reader has opened, ticked, chosen and focused, to be put back. */
function remember(part) {
  const open = [...part.querySelectorAll("details[open]")].map((one) => one.id);
  const ticked = [...part.querySelectorAll("input:checked")].map((one) => one.value);
  const chosen = part.querySelector("input[type=range]")?.value;
  const follows = chosen !== undefined && chosen === part.querySelector("input[type=range]").max;
  const focused = [...part.querySelectorAll("a, input, summary, [tabindex]")].indexOf(document.activeElement);
  return (other) => {
    for (const one of other.querySelectorAll("details")) one.open = open.includes(one.id);
    for (const one of other.querySelectorAll("input[type=checkbox]")) one.checked = ticked.includes(one.value);
    const range = other.querySelector("input[type=range]");
    if (range && chosen !== undefined && !follows) {
      range.value = chosen;
      range.dispatchEvent(new Event("input"));
    }
    if (focused >= 0) other.querySelectorAll("a, input, summary, [tabindex]")[focused]?.focus({ preventScroll: true });
  };
}

function tell(news) {
  const line = document.querySelector("[data-news]");
  if (line) line.textContent = news;
}

/* Reading by pointing: the row of the table that belongs to the epoch under the pointer */

function readByPointing(plot) {
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  line.setAttribute("class", "pointer");
  line.setAttribute("y2", "100%");
  line.setAttribute("visibility", "hidden");
  plot.append(line);
  const [low, high] = [Number(plot.dataset.low), Number(plot.dataset.high)];

  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    const epoch = Math.round(low + ((event.clientX - box.left) / box.width) * (high - low));
    const words = rowOf(plot.dataset.table, epoch);
    if (!words) return;
    const place = `${(100 * (epoch - low)) / (high - low)}%`;
    line.setAttribute("x1", place);
    line.setAttribute("x2", place);
    line.setAttribute("visibility", "visible");
    read(plot, words);
  });
  plot.addEventListener("pointerleave", () => {
    line.setAttribute("visibility", "hidden");
    read(plot, "");
  });
}

function rowOf(table, epoch) {
  const found = document.getElementById(table);
  const row = found?.querySelector(`[data-epoch="${epoch}"]`);
  if (!row) return "";
  const heads = [...found.querySelectorAll("thead th")];
  return [...row.cells].map((cell, n) => `${heads[n].textContent} ${cell.textContent}`).join(" · ");
}

function read(plot, words) {
  const line = plot.closest("section").querySelector("[data-reading]");
  if (line) line.textContent = words;
}

/* conv1 after any epoch */

function slide(box) {
  const links = [...box.parentElement.querySelectorAll(".every a")];
  const [range, output, picture] = ["input", "output", "img"].map((name) => box.querySelector(name));
  const show = () => {
    const link = links[Number(range.value)];
    if (!link) return;
    output.textContent = link.dataset.epoch;
    range.setAttribute("aria-valuetext", `epoch ${link.dataset.epoch}`);
    picture.alt = `conv1 after epoch ${link.dataset.epoch}`;
    picture.src = link.href;
  };
  range.addEventListener("input", show);
  box.closest("details").addEventListener("toggle", show, { once: true });
  box.hidden = false;
}

/* Comparing */

function prepareTicks() {
  const form = document.querySelector(".runs");
  const said = document.getElementById("ticked");
  if (!form || !said) return;
  const most = Number(form.dataset.most);
  const at = said.textContent;
  form.addEventListener("change", () => {
    const count = form.querySelectorAll("input:checked").length;
    said.textContent = count > most ? `At most ${most} can be told apart; ${count} are ticked.` : at;
  });
  form.addEventListener("submit", (event) => {
    const count = form.querySelectorAll("input:checked").length;
    if (count >= 2 && count <= most) return;
    event.preventDefault();
    said.textContent = count < 2 ? at : `At most ${most} can be told apart; ${count} are ticked.`;
  });
}
