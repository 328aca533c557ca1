/* Live updates of running runs, values under the pointer, the conv1 slider, and the selection of
   runs to compare. The pages work without this file. */

const UPDATE_INTERVAL = 5000;
const PARTS = "[data-part]";
const shownParts = new Map();

function prepare(within) {
  within.querySelectorAll(".plot").forEach(showValuesAtPointer);
  within.querySelectorAll("[data-slider]").forEach(prepareSlider);
}

document.querySelectorAll(PARTS).forEach((part) => shownParts.set(part.dataset.part, part.outerHTML));
prepare(document);
prepareSelection();
followRuns();

/* Live updates */

function followRuns() {
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
        line.hidden = false;
        pause.hidden = true;
        status.textContent = "This run has been deleted; this page shows its last known state.";
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
    if (!other || other.outerHTML === shownParts.get(name)) continue;
    shownParts.set(name, other.outerHTML);
    if (other.dataset.announce && other.dataset.announce !== part.dataset.announce) announce(other.dataset.announce);
    const restore = captureState(part);
    part.replaceWith(other);
    prepare(other);
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

/* The table row of the epoch under the pointer */

function showValuesAtPointer(plot) {
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  line.setAttribute("class", "pointer");
  line.setAttribute("y2", "100%");
  line.setAttribute("visibility", "hidden");
  plot.append(line);
  const [first, last] = [Number(plot.dataset.first), Number(plot.dataset.last)];

  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    const epoch = Math.round(first + ((event.clientX - box.left) / box.width) * (last - first));
    const values = describeRow(plot.dataset.table, epoch);
    if (!values) return;
    const place = `${(100 * (epoch - first)) / (last - first)}%`;
    line.setAttribute("x1", place);
    line.setAttribute("x2", place);
    line.setAttribute("visibility", "visible");
    showValues(plot, values);
  });
  plot.addEventListener("pointerleave", () => {
    line.setAttribute("visibility", "hidden");
    showValues(plot, "");
  });
}

function describeRow(table, epoch) {
  const found = document.getElementById(table);
  const row = found?.querySelector(`[data-epoch="${epoch}"]`);
  if (!row) return "";
  const heads = [...found.querySelectorAll("thead th")];
  return [...row.cells].map((cell, n) => `${heads[n].textContent} ${cell.textContent}`).join(" · ");
}

function showValues(plot, values) {
  const line = plot.closest("section").querySelector("[data-values]");
  if (line) line.textContent = values;
}

/* The slider through conv1's pictures */

function prepareSlider(box) {
  const links = [...box.parentElement.querySelectorAll(".conv1-epochs a")];
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

/* Selecting runs to compare */

function prepareSelection() {
  const form = document.querySelector(".runs");
  const hint = document.getElementById("selection");
  if (!form || !hint) return;
  const max = Number(form.dataset.max);
  const instruction = hint.textContent;
  const countChecked = () => form.querySelectorAll("input:checked").length;
  const describe = (count) => {
    hint.textContent = count > max ? `${count} runs selected; at most ${max} can be compared.` : instruction;
  };
  form.addEventListener("change", () => describe(countChecked()));
  form.addEventListener("submit", (event) => {
    const count = countChecked();
    if (count >= 2 && count <= max) return;
    event.preventDefault();
    describe(count);
  });
}
